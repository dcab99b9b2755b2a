/** The command line inside a test. */
import { Writable } from 'node:stream';
import { main } from '../../../src/cli/main';

/** Keeps what is written. */
export class Sink extends Writable {
  text = '';
  isTTY?: boolean;
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

/** Runs one command line in this process. */
export async function hpformer(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const io = { stdout: new Sink(), stderr: new Sink() };
  const code = await main(args, io);
  return { code, out: io.stdout.text, err: io.stderr.text };
}
