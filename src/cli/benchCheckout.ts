/** What only a checkout of the project has: the folder bench/ with native probes and peers. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { HPformerError } from '../errors';
import type { Ceilings } from './benchTiming';

const runner = path.join(__dirname, '..', '..', 'bench', 'run.cjs');

/** True in a checkout of the project, false in an installed package. */
export const inCheckout = (): boolean => existsSync(runner);

/**
 * Runs a task of bench/ (built on first use) and returns what it printed; progress goes to stderr.
 * @param codes exit codes that are no failure, where it printed something (default 0)
 * @throws HPformerError `ERR_HPFORMER_FILE` when it fails.
 */
export async function runInCheckout(args: readonly string[], codes: readonly number[] = [0]): Promise<string> {
  const child = spawn(process.execPath, [runner, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (!codes.includes(code!) || (code !== 0 && out === '')) {
    throw new HPformerError('ERR_HPFORMER_FILE', `bench/run.cjs ${args.join(' ')}: expected exit code 0, got ${code}`);
  }
  return out;
}

/** Ceilings of this machine, in a checkout; undefined elsewhere. */
export async function ceilings(): Promise<Ceilings | undefined> {
  return inCheckout() ? (JSON.parse(await runInCheckout(['native', 'ceilings'])) as Ceilings) : undefined;
}
