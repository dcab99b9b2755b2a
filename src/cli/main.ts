#!/usr/bin/env node
import { HPformerError } from '../errors';
import { removeUnfinished } from '../files';
import { bench } from './bench';
import { type Command, commandHelp, type Io, note, parseCommand, readerGone, UsageError, write } from './command';
import { convert } from './convert';
import { doctor, packageVersion } from './doctor';
import { evaluate } from './evaluate';
import { explain } from './explain';
import { inspect } from './inspect';
import { predict } from './predict';
import { prepare } from './prepare';

/** Every command; adding one is one file and one line. */
export const commands: Readonly<Record<string, Command>> = {
  predict,
  evaluate,
  explain,
  inspect,
  convert,
  prepare,
  doctor,
  bench,
};

function overview(): string {
  const width = Math.max(...Object.keys(commands).map((name) => name.length)) + 2;
  return [
    'Usage: hpformer <command> [arguments] [options]',
    '',
    'Runs HPformer models on CPU and CUDA.',
    '',
    'Commands:',
    ...Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(width)}${summary}`),
    '',
    'hpformer <command> --help says more. --version prints the version.',
    'With --json the result is all that goes to standard output, and an error is a line of JSON on standard error:',
    '{"error":{"code":…,"message":…}}, where code is one of the package (ERR_HPFORMER_…), or USAGE for wrong usage.',
    'Of an option that is given twice the last one counts. Exit codes: 0 done, 1 failed, 2 wrong usage.',
    '',
  ].join('\n');
}

/** Whether the answers are to be JSON: `--json` anywhere before a double dash. */
function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).includes('--json');
}

/** `help predict` is `predict --help`, and `--json predict` is `predict --json`. */
function reordered(args: readonly string[]): readonly string[] {
  const [first, name, ...rest] = args;
  if (first === 'help' && name !== undefined && rest.length === 0) return [name, '--help'];
  if (first === '--json') return name === undefined ? [] : [name, '--json', ...rest];
  return args;
}

/** Does what a command line asks for. @returns the exit code. */
async function dispatch(name: string | undefined, rest: string[], io: Io): Promise<number> {
  if (name === '--help' || name === '-h' || name === 'help') {
    await write(io.stdout, overview());
    return 0;
  }
  if (name === '--version') {
    await write(io.stdout, `${packageVersion()}\n`);
    return 0;
  }
  const command = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) {
    const got = name === undefined ? 'none' : `"${name}"`;
    throw new UsageError(`expected a command (${Object.keys(commands).join(', ')}), got ${got}`);
  }
  const { positionals, values } = parseCommand(command, rest);
  if (values.help) {
    await write(io.stdout, commandHelp(name!, command));
    return 0;
  }
  return await command.run(positionals, values, io);
}

/**
 * Runs one command line.
 *
 * @param args without node and script.
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage.
 */
export async function main(args: string[], io: Io): Promise<number> {
  const json = wantsJson(args);
  if (args.length === 0) {
    await note(io.stderr, overview());
    return 2;
  }
  const [name, ...rest] = reordered(args);
  try {
    return await dispatch(name, rest, io);
  } catch (error) {
    if (readerGone(error)) return 0;
    const usage = error instanceof UsageError;
    const code = error instanceof HPformerError ? error.code : usage ? 'USAGE' : undefined;
    // Anything else is a defect: its stack helps whoever reports it.
    const message = code
      ? (error as Error).message
      : error instanceof Error
        ? (error.stack ?? error.message)
        : String(error);
    const where = name !== undefined && Object.hasOwn(commands, name) ? `hpformer ${name}` : 'hpformer';
    if (json)
      await note(io.stderr, `${JSON.stringify({ error: { code: code ?? 'ERR_HPFORMER_INTERNAL', message } })}\n`);
    else if (usage) await note(io.stderr, `${where}: ${message}\n${where} --help says more.\n`);
    else await note(io.stderr, `${where}: ${message}${code ? ` (${code})` : ''}\n`);
    return usage ? 2 : 1;
  }
}

if (require.main === module) {
  // Whoever writes is told by the write itself; without listeners the same failure would end the process as a defect.
  process.stdout.on('error', () => undefined);
  process.stderr.on('error', () => undefined);
  process.once('exit', removeUnfinished);
  // Through process.exit, so that files being written are removed.
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));
  void main(process.argv.slice(2), process).then((code) => {
    process.exitCode = code;
  });
}
