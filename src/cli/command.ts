import { parseArgs } from 'node:util';
import { HPformerError } from '../errors';
import { fileError } from '../files';
import { describe } from '../tensor/shape';

/** The command line was wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** One option of a command; help and parsing come from this one description. */
export interface Option {
  type: 'string' | 'boolean';
  /** Placeholder of the value in the help. */
  value?: string;
  help: string;
  short?: string;
}

export type Options = Readonly<Record<string, Option>>;

/** What was given on the command line, by option name. */
export type Values = Record<string, string | boolean | undefined>;

/** Where a command writes: streams, so that tests and pipes look the same. */
export interface Io {
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
}

/** A command: its face in the help, and what it does. */
export interface Command {
  summary: string;
  /** Positional arguments, as in the help. */
  usage: string;
  /** How many positional arguments it takes. */
  positionals: { least: number; most: number };
  options: Options;
  /** Further lines of the help. */
  notes?: readonly string[];
  /** @returns the exit code. */
  run(positionals: string[], values: Values, io: Io): Promise<number>;
}

const common: Options = { help: { type: 'boolean', short: 'h', help: 'this text' } };

/** Help text of one command. */
export function commandHelp(name: string, command: Command): string {
  const rows = Object.entries({ ...command.options, ...common }).map(([option, { short, value, help }]) => [
    `  ${short ? `-${short}, ` : ''}--${option}${value ? ` <${value}>` : ''}`,
    help,
  ]);
  const width = Math.max(...rows.map(([left]) => left!.length)) + 2;
  const lines = [
    `Usage: hpformer ${name} ${command.usage}`,
    '',
    command.summary,
    '',
    'Options:',
    ...rows.map(([left, help]) => `${left!.padEnd(width)}${help}`),
  ];
  if (command.notes) lines.push('', ...command.notes);
  return `${lines.join('\n')}\n`;
}

/** Node's message of a wrong command line, in one line. */
function parseMessage({ message }: Error, options: Options): string {
  const [, given] = /^Option '(-[^']+)' argument is ambiguous/.exec(message) ?? [];
  if (given === undefined) return message.split('. To specify')[0]!;
  const long = Object.keys(options).find((name) => `-${options[name]!.short}` === given);
  const name = long === undefined ? given : `--${long}`;
  return `${name}: expected a value; one that begins with a dash is written ${name}=-…`;
}

/**
 * Parses a command's arguments strictly.
 * @throws UsageError for unknown options, missing values and a wrong number of positional arguments.
 */
export function parseCommand(command: Command, args: string[]): { positionals: string[]; values: Values } {
  const options = Object.fromEntries(
    Object.entries({ ...command.options, ...common }).map(([option, { type, short }]) => [
      option,
      short ? { type, short } : { type },
    ]),
  );
  let parsed: { positionals: string[]; values: Values };
  try {
    parsed = parseArgs({ args, options, allowPositionals: true, strict: true }) as typeof parsed;
  } catch (error) {
    throw new UsageError(parseMessage(error as Error, command.options));
  }
  if (parsed.values.help) return parsed;
  const { least, most } = command.positionals;
  const count = parsed.positionals.length;
  if (count < least || count > most) {
    const expected = most === 0 ? 'no arguments' : `arguments ${command.usage.replace(' [options]', '')}`;
    throw new UsageError(`expected ${expected}, got ${count === 0 ? 'none' : count}`);
  }
  return { positionals: [...parsed.positionals], values: { ...parsed.values } };
}

/** An option's whole number, or the default. @throws UsageError. */
export function integerOption(values: Values, name: string, least: number, most: number): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = typeof text === 'string' && /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new UsageError(`--${name}: expected a whole number from ${least} to ${most}, got ${describe(text)}`);
  }
  return value;
}

/** An option's text out of a few, or the default. @throws UsageError. */
export function choiceOption<T extends string>(values: Values, name: string, choices: readonly T[]): T | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  if (!choices.includes(text as T))
    throw new UsageError(`--${name}: expected ${choices.join(', ')}, got ${describe(text)}`);
  return text as T;
}

/** An option's text, if given. */
export function textOption(values: Values, name: string): string | undefined {
  const text = values[name];
  return typeof text === 'string' ? text : undefined;
}

/** Failures of standard output because whoever read it went away. */
const gone = new WeakSet<HPformerError>();

/** Whether a command ended because the reader of its results went away (`| head`): nothing more needs to be done or said. */
export function readerGone(error: unknown): boolean {
  return error instanceof HPformerError && gone.has(error);
}

/**
 * Writes results to standard output and waits until a slow pipe has taken them.
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export async function write(stdout: NodeJS.WritableStream, text: string): Promise<void> {
  try {
    await put(stdout, text);
  } catch (cause) {
    const error = fileError('stdout', 'written', cause);
    if ((cause as NodeJS.ErrnoException).code === 'EPIPE') gone.add(error);
    throw error;
  }
}

/** Writes a value as indented JSON; numbers that JSON lacks become null. @throws as {@link write}. */
export function writeJson(stdout: NodeJS.WritableStream, value: unknown): Promise<void> {
  return write(stdout, `${JSON.stringify(value, null, 2)}\n`);
}

/** Tells people something on standard error. Where nobody can be told, what was done and its exit code stay the same. */
export async function note(stderr: NodeJS.WritableStream, text: string): Promise<void> {
  await put(stderr, text).catch(() => undefined);
}

function put(stream: NodeJS.WritableStream, text: string): Promise<void> {
  return new Promise((resolve, reject) => stream.write(text, (error) => (error ? reject(error) : resolve())));
}
