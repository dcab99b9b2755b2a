#!/usr/bin/env node
import { HPformerError } from '../errors';
import { bench } from './bench';
import { type Command, commandHelp, type Io, parseCommand, UsageError, write } from './command';
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
    'With --json the result is all that goes to standard output; errors are JSON on standard error.',
    'Exit codes: 0 done, 1 failed, 2 wrong usage.',
    '',
  ].join('\n');
}

/**
 * Runs one command line.
 *
 * @param args without node and script.
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage.
 */
export async function main(args: string[], io: Io): Promise<number> {
  // `hpformer help predict` is `hpformer predict --help`.
  const [name, ...rest] = args[0] === 'help' && args.length === 2 ? [args[1]!, '--help'] : args;
  if (name === '--help' || name === '-h' || name === 'help') {
    await write(io.stdout, overview());
    return 0;
  }
  if (name === '--version') {
    await write(io.stdout, `${packageVersion()}\n`);
    return 0;
  }
  if (name === undefined) {
    await write(io.stderr, overview());
    return 2;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) {
    await write(
      io.stderr,
      `hpformer: expected a command (${Object.keys(commands).join(', ')}), got "${name}"\nhpformer --help says more.\n`,
    );
    return 2;
  }
  const json = rest.includes('--json');
  try {
    const { positionals, values } = parseCommand(command, rest);
    if (values.help) {
      await write(io.stdout, commandHelp(name, command));
      return 0;
    }
    return await command.run(positionals, values, io);
  } catch (error) {
    const usage = error instanceof UsageError;
    const code = error instanceof HPformerError ? error.code : usage ? 'USAGE' : undefined;
    // Anything else is a defect: its stack helps whoever reports it.
    const message = code
      ? (error as Error).message
      : error instanceof Error
        ? (error.stack ?? error.message)
        : String(error);
    if (json)
      await write(io.stderr, `${JSON.stringify({ error: { code: code ?? 'ERR_HPFORMER_INTERNAL', message } })}\n`);
    else if (usage) await write(io.stderr, `hpformer ${name}: ${message}\nhpformer ${name} --help says more.\n`);
    else await write(io.stderr, `hpformer ${name}: ${message}${code ? ` (${code})` : ''}\n`);
    return usage ? 2 : 1;
  }
}

if (require.main === module) {
  // A reader that went away (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  // Through process.exit, so that files being written are removed.
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));
  main(process.argv.slice(2), process).then(
    (code) => {
      process.exitCode = code;
    },
    (error) => {
      process.stderr.write(`hpformer: ${error instanceof Error ? error.stack : String(error)}\n`);
      process.exitCode = 1;
    },
  );
}
