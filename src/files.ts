import { randomBytes } from 'node:crypto';
import { constants, createWriteStream, realpathSync, rmSync, type WriteStream } from 'node:fs';
import { chmod, type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { HPformerError } from './errors';

/**
 * Why something failed, in one line: the message of whatever was thrown (an error of another realm is no `instanceof Error`),
 * without the system call and path that Node appends, since our messages begin with the path that the user gave.
 */
export function reasonOf(cause: unknown): string {
  const { message, syscall } = (cause ?? {}) as { message?: unknown; syscall?: unknown };
  const text = String(message ?? cause);
  return typeof syscall === 'string' ? text.split(`, ${syscall}`)[0]! : text;
}

/** The error of a file that cannot be `read`, `written` or `made`. */
export function fileError(path: string, what: 'read' | 'written' | 'made', cause: unknown): HPformerError {
  return new HPformerError('ERR_HPFORMER_FILE', `${path}: cannot be ${what} (${reasonOf(cause)})`, { cause });
}

/** Reads a whole regular file. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readWhole(path: string): Promise<Uint8Array> {
  let file: FileHandle | undefined;
  try {
    // A pipe or a device could block or never end: at the opening already, if it were not said that it must not.
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stats = await file.stat();
    if (!stats.isFile()) {
      throw new HPformerError(
        'ERR_HPFORMER_FILE',
        `${path}: expected a file, got ${stats.isDirectory() ? 'a directory' : 'something else'}`,
      );
    }
    return await file.readFile();
  } catch (cause) {
    throw cause instanceof HPformerError ? cause : fileError(path, 'read', cause);
  } finally {
    await file?.close();
  }
}

/** Reads a text file in UTF-8, a pipe as well. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError(path, 'read', cause);
  }
}

/**
 * Reads a JSON file.
 * @param what - what its content is, for the message.
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export async function readJson(path: string, what = 'JSON'): Promise<unknown> {
  return parseJsonText(path, await readText(path), what);
}

/** JSON text that came from `path`. @throws HPformerError `ERR_HPFORMER_FILE`. */
export function parseJsonText(path: string, text: string, what = 'JSON'): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${path}: expected ${what} (${reasonOf(cause)})`, { cause });
  }
}

/**
 * Makes a folder and those above it; one that exists is fine. Level by level, since Node's own recursion has no end where a folder
 * that exists cannot hold another (`/proc`). @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export async function makeFolder(path: string): Promise<void> {
  const make = async (folder: string, above: boolean): Promise<void> => {
    try {
      await mkdir(folder);
    } catch (cause) {
      const there = await stat(folder).catch(() => undefined);
      if (there?.isDirectory()) return;
      const parent = dirname(folder);
      if ((cause as NodeJS.ErrnoException).code !== 'ENOENT' || parent === folder) throw cause;
      if (!above) throw new HPformerError('ERR_HPFORMER_FILE', `${parent} cannot hold a folder`, { cause });
      await make(parent, true);
      await make(folder, false);
    }
  };
  try {
    await make(resolve(path), true);
  } catch (cause) {
    throw fileError(path, 'made', cause);
  }
}

/** Files of this process that are begun and not complete. */
const unfinished = new Set<string>();

/** Removes every file that is begun and not complete: for a process that ends before its work does. */
export function removeUnfinished(): void {
  for (const file of unfinished) {
    try {
      rmSync(file, { force: true });
    } catch {
      // The others all the same.
    }
  }
  unfinished.clear();
}

/**
 * A file that is written beside its name and gets it when complete: a reader sees the old file or the new one. It takes the rights of a
 * file that it replaces, and the place that a link of its name leads to.
 */
export class Unfinished {
  /** Where it is written. */
  readonly temporary: string;
  private readonly place: string;

  /** @param target - the name, as messages call it. */
  constructor(readonly target: string) {
    try {
      this.place = realpathSync(target);
    } catch {
      this.place = target; // nothing there yet
    }
    this.temporary = `${this.place}.${randomBytes(6).toString('hex')}.tmp`;
    unfinished.add(this.temporary);
  }

  /** Gives the file, which is complete and closed, its name. */
  async keep(): Promise<void> {
    const replaced = await stat(this.place).catch(() => undefined);
    if (replaced?.isFile()) await chmod(this.temporary, replaced.mode & 0o777);
    await rename(this.temporary, this.place);
    unfinished.delete(this.temporary);
  }

  /** Removes the file, if it is there. */
  async drop(): Promise<void> {
    await rm(this.temporary, { force: true }).catch(() => undefined);
    unfinished.delete(this.temporary);
  }
}

/** Writes a whole file or nothing, flushed to the disk. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function writeAtomically(path: string, content: Uint8Array | string): Promise<void> {
  const begun = new Unfinished(path);
  try {
    const file = await open(begun.temporary, 'wx');
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await begun.keep();
  } catch (cause) {
    await begun.drop();
    throw fileError(path, 'written', cause);
  }
}

/** Writes a file where it lies, without the flush of {@link writeAtomically}: for many small ones. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function writePlainly(path: string, content: string): Promise<void> {
  unfinished.add(path);
  try {
    await writeFile(path, content);
  } catch (cause) {
    throw fileError(path, 'written', cause);
  } finally {
    unfinished.delete(path);
  }
}

/** A text file written piece by piece: waits when the disk is behind, and every failure is an error with a code. */
export class TextWriter {
  private readonly stream: WriteStream;

  /**
   * @param name - what error messages call the file; default its path.
   * @param flags - as `fs.open` takes them: `w` (default) replaces, `a` appends, `wx` makes a new one.
   */
  constructor(
    path: string,
    flags: 'w' | 'a' | 'wx' = 'w',
    private readonly name = path,
  ) {
    this.stream = createWriteStream(path, { flags });
    // The stream remembers its first failure; without a listener it would end the process.
    this.stream.on('error', () => undefined);
  }

  /**
   * Appends text.
   * @param settled - wait until the system has it, instead of only when too much is waiting.
   * @throws HPformerError `ERR_HPFORMER_FILE`.
   */
  async write(text: string, settled = false): Promise<void> {
    this.check();
    await new Promise<void>((resolve) => {
      const room = this.stream.write(text, () => resolve());
      if (room && !settled) resolve();
    });
    this.check();
  }

  /** Waits until everything is written. @throws HPformerError `ERR_HPFORMER_FILE`. */
  async end(): Promise<void> {
    await this.closed(() => this.stream.end());
    this.check();
  }

  /** Closes the file as it is, and waits for that; failures no longer matter. */
  async abandon(): Promise<void> {
    await this.closed(() => this.stream.destroy());
  }

  private closed(close: () => void): Promise<void> {
    return new Promise((resolve) => {
      if (this.stream.closed) return resolve();
      this.stream.once('close', resolve);
      close();
    });
  }

  private check(): void {
    const { errored } = this.stream;
    if (errored) throw fileError(this.name, 'written', errored);
  }
}

/** A text file written piece by piece that appears under its name when it ends, and leaves nothing where it does not. */
export class WholeTextWriter extends TextWriter {
  private readonly begun: Unfinished;

  constructor(path: string) {
    const begun = new Unfinished(path);
    super(begun.temporary, 'wx', path);
    this.begun = begun;
  }

  /** Completes the file. @throws HPformerError `ERR_HPFORMER_FILE`; the file is removed then. */
  override async end(): Promise<void> {
    try {
      await super.end();
      await this.begun.keep();
    } catch (cause) {
      await this.abandon();
      throw cause instanceof HPformerError ? cause : fileError(this.begun.target, 'written', cause);
    }
  }

  /** Closes and removes what was written so far. */
  override async abandon(): Promise<void> {
    await super.abandon();
    await this.begun.drop();
  }
}
