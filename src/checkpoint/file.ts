import { fileURLToPath } from 'node:url';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { arrayName } from '../tensor/tensor';

/** Where a checkpoint comes from: a path, a `file:` URL or its bytes. Never the network. */
export type CheckpointSource = string | URL | Uint8Array;

/** True for a byte array of any realm, Node's Buffer included. */
export function isBytes(value: unknown): value is Uint8Array {
  return arrayName(value) === 'Uint8Array';
}

/**
 * The path that a value names: a string or a `file:` URL.
 *
 * @param where - begins error messages.
 * @param expected - what the caller takes.
 * @throws HPformerError `ERR_HPFORMER_FILE` for any URL but `file:` (nothing is ever fetched), `ERR_HPFORMER_TYPE` for other values.
 */
export function pathOf(source: unknown, where = 'source', expected = 'a path, a file: URL or a Uint8Array'): string {
  const isUrl = Object.prototype.toString.call(source) === '[object URL]';
  if (typeof source !== 'string' && !isUrl) {
    throw new HPformerError('ERR_HPFORMER_TYPE', `${where}: expected ${expected}, got ${describe(source)}`);
  }
  const text = String(source);
  if (isUrl || /^file:/i.test(text)) {
    try {
      return fileURLToPath(text);
    } catch (cause) {
      throw new HPformerError(
        'ERR_HPFORMER_FILE',
        `${where}: expected a file: URL of this machine, got ${describe(text)}`,
        { cause },
      );
    }
  }
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(text)) {
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `${where}: expected a path or a file: URL (nothing is fetched from the network), got ${describe(text)}`,
    );
  }
  if (text.length === 0 || text.includes('\0')) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${where}: expected a path, got ${describe(text)}`);
  }
  return text;
}
