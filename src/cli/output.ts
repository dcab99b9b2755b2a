import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import path from 'node:path';
import { HPformerError } from '../errors';
import { fileError } from '../files';
import { UsageError } from './command';

/**
 * Says before any work what would only fail, or be regretted, after it. Every output is written beside its name and renamed when
 * complete, so that name must be free or a regular file's (a device or pipe would be replaced), in a folder that takes files, and none
 * of the inputs.
 *
 * @param given what the file was given as: an option with its dashes, or words.
 * @param files undefined: not asked for, nothing to check.
 * @throws HPformerError `ERR_HPFORMER_FILE`; UsageError for an input.
 */
export async function checkOutput(given: string, file: string | undefined, inputs: readonly string[]): Promise<void> {
  if (file === undefined) return;
  const there = await stat(file).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined;
    throw fileError(file, 'written', cause);
  });
  if (there && !there.isFile()) {
    const got = there.isDirectory() ? 'a directory' : 'a device or pipe';
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected the name of a file to write, got ${got}`);
  }
  try {
    await access(path.dirname(file), constants.W_OK);
  } catch (cause) {
    throw fileError(file, 'written', cause);
  }
  if (!there) return;
  for (const input of inputs) {
    const other = await stat(input).catch(() => undefined);
    if (other?.ino === there.ino && other.dev === there.dev)
      throw new UsageError(`${given}: expected another file than the input "${input}"`);
  }
}
