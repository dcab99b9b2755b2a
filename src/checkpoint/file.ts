import { open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';

/** Where a checkpoint comes from: a path, a `file:` URL or its bytes. Never the network. */
export type CheckpointSource = string | URL | Uint8Array;

/** True for a byte array of any realm, Node's Buffer included. */
export function isBytes(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && ['Uint8Array'].includes(Object.prototype.toString.call(value).slice(8, -1));
}

/**
 * The path that a source names.
 * @throws HPformerError `ERR_HPFORMER_FILE` for any URL but `file:` (nothing is ever fetched), `ERR_HPFORMER_TYPE` for other values.
 */
export function pathOf(source: unknown): string {
  const isUrl = Object.prototype.toString.call(source) === '[object URL]';
  if (typeof source !== 'string' && !isUrl) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `source: expected a path, a file: URL or a Uint8Array, got ${describe(source)}`,
    );
  }
  const text = String(source);
  if (isUrl || /^file:/i.test(text)) {
    try {
      return fileURLToPath(text);
    } catch (cause) {
      throw new HPformerError(
        'ERR_HPFORMER_FILE',
        `source: expected a file: URL of this machine, got ${describe(text)}`,
        { cause },
      );
    }
  }
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(text)) {
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `source: expected a path or a file: URL (nothing is fetched from the network), got ${describe(text)}`,
    );
  }
  if (text.length === 0 || text.includes('\0')) {
    throw new HPformerError('ERR_HPFORMER_FILE', `source: expected a path, got ${describe(text)}`);
  }
  return text;
}

/** The message of whatever was thrown (an error of another realm is no `instanceof Error`). */
export function reasonOf(cause: unknown): string {
  return String((cause as { message?: unknown } | null)?.message ?? cause);
}

/** Reads a whole regular file. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readWhole(path: string): Promise<Uint8Array> {
  try {
    const file = await open(path, 'r');
    try {
      const stats = await file.stat();
      // A pipe or a device could block or never end.
      if (!stats.isFile()) {
        throw new HPformerError(
          'ERR_HPFORMER_FILE',
          `${path}: expected a file, got ${stats.isDirectory() ? 'a directory' : 'something else'}`,
        );
      }
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof HPformerError) throw cause;
    throw new HPformerError('ERR_HPFORMER_FILE', `${path}: cannot be read (${reasonOf(cause)})`, { cause });
  }
}
