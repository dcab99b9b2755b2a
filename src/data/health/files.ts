import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { HPformerError } from '../../errors';
import { fileError } from '../../files';

// A pipe would block the whole process at the opening already, signals too, if it were not said that it must not.
const readNow = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

// Grows to the largest file read; episode files are a few kilobytes.
let scratch = Buffer.allocUnsafe(1 << 16);

/** Reads a small file at once, several times cheaper than a promise. @throws HPformerError `ERR_HPFORMER_FILE`. */
export function readBytesSync(file: string): Buffer {
  return Buffer.from(borrowBytesSync(file));
}

/** As {@link readBytesSync}, into memory that the next call uses again. */
export function borrowBytesSync(file: string): Buffer {
  let opened: number | undefined;
  try {
    opened = openSync(file, readNow);
    const stats = fstatSync(opened);
    if (!stats.isFile()) {
      const got = stats.isDirectory() ? 'a directory' : 'something else';
      throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected a file, got ${got}`);
    }
    let size = 0;
    for (;;) {
      if (size === scratch.length) {
        const larger = Buffer.allocUnsafe(2 * size);
        scratch.copy(larger);
        scratch = larger;
      }
      const read = readSync(opened, scratch, size, scratch.length - size, null);
      if (read === 0) return scratch.subarray(0, size);
      size += read;
    }
  } catch (cause) {
    throw cause instanceof HPformerError ? cause : fileError(file, 'read', cause);
  } finally {
    if (opened !== undefined) closeSync(opened);
  }
}
