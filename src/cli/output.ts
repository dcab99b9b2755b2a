import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { HPformerError } from '../errors';
import { fileError } from '../files';
import { UsageError } from './command';

/** A file that a command is told to write. */
export interface Output {
  /** What the file was given as: an option with its dashes, or words. */
  given: string;
  /** Undefined: not asked for, nothing to check. */
  file: string | undefined;
  /** Written to as it is, so that a pipe or device will do; else replaced by its successor. */
  appended?: boolean;
}

/** What commands read of a folder: data in any of its formats, list files, prepared arrays, a packed model. Scores and reports are none. */
const readOfFolders =
  /(timeseries|listfile)\.csv$|^(people|readings|diagnoses|events|stays)\.csv$|\.csv\.gz$|\.(json|jsonl|ndjson|parquet|arrow|feather|npy|safetensors|pt|pth)$|^ids\.txt$/;

/** The name a file has or will have, whatever links lead to its folder. */
async function place(file: string): Promise<string> {
  const folder = path.dirname(path.resolve(file));
  return path.join(await realpath(folder).catch(() => folder), path.basename(file));
}

/**
 * Says before any work that a file is one of the inputs, or one that would be read of a folder among them.
 *
 * @param inputs files and folders; what does not exist counts for nothing.
 * @throws UsageError.
 */
export async function refuseInput(given: string, file: string, inputs: readonly string[]): Promise<void> {
  const there = await stat(file).catch(() => undefined);
  if (!there) return;
  const real = await realpath(file);
  for (const input of inputs) {
    const other = await stat(input).catch(() => undefined);
    if (other?.ino === there.ino && other.dev === there.dev)
      throw new UsageError(`${given}: expected another file than the input "${input}"`);
    if (other?.isDirectory() && readOfFolders.test(path.basename(real))) {
      const inside = path.relative(await realpath(input), real);
      if (!path.isAbsolute(inside) && inside.split(path.sep)[0] !== '..')
        throw new UsageError(`${given}: expected another file than "${file}", which is read of the input "${input}"`);
    }
  }
}

/**
 * Says before any work what would only fail, or be regretted, after it. Every output but one that is appended to is written beside its
 * name and renamed when complete, so that name must be free or a regular file's (a device or pipe would be replaced), in a folder that
 * takes files. It is none of the inputs, and no other output.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE`; UsageError for an input or another output.
 */
export async function checkOutputs(outputs: readonly Output[], inputs: readonly string[]): Promise<void> {
  const taken = new Map<string, string>();
  for (const { given, file, appended = false } of outputs) {
    if (file === undefined) continue;
    const there = await stat(file).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return undefined;
      throw fileError(file, 'written', cause);
    });
    if (there?.isDirectory() || (there && !there.isFile() && !appended)) {
      const got = there.isDirectory() ? 'a directory' : 'a device or pipe';
      throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected the name of a file to write, got ${got}`);
    }
    try {
      await access(there && appended ? file : path.dirname(file), constants.W_OK);
    } catch (cause) {
      throw fileError(file, 'written', cause);
    }
    await refuseInput(given, file, inputs);
    const name = there ? `${there.dev}:${there.ino}` : await place(file);
    const other = taken.get(name);
    if (other !== undefined)
      throw new UsageError(`${given}: expected another file than that of ${other}, got "${file}"`);
    taken.set(name, given);
  }
}
