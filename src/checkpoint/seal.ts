/** The seal of a bundle: a SHA-256 over all of a file but itself, kept in the file's metadata. */
import { createHash } from 'node:crypto';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import type { StateDict } from './tensors';

/** Metadata keys of a bundle: a safetensors model file that also carries its feature recipe and its origin. */
export const bundleKeys = { content: 'hpformer.bundle', hash: 'hpformer.bundle.sha256' } as const;

/** SHA-256 over all metadata except the hash itself, and every tensor's name, type, shape and bytes, in name order. */
export function bundleHash(state: Pick<StateDict, 'tensors' | 'metadata'>): string {
  const hash = createHash('sha256');
  const put = (text: string) => hash.update(`${Buffer.byteLength(text)}:${text}`);
  for (const key of Object.keys(state.metadata).sort()) {
    if (key === bundleKeys.hash) continue;
    put(key);
    put(state.metadata[key]!);
  }
  for (const name of [...state.tensors.keys()].sort()) {
    const { type, dims, bytes } = state.tensors.get(name)!;
    put(`${name} ${type} [${dims.join(',')}]`);
    hash.update(bytes);
  }
  return hash.digest('hex');
}

/**
 * Checks the seal of a file that is a bundle.
 * @returns the hash; undefined when the file is no bundle.
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` when anything in the file was changed.
 */
export function checkSeal(state: Pick<StateDict, 'tensors' | 'metadata'>, where: string): string | undefined {
  if (!Object.hasOwn(state.metadata, bundleKeys.content)) return undefined;
  const expected = state.metadata[bundleKeys.hash];
  const hash = bundleHash(state);
  if (expected === hash) return hash;
  throw new HPformerError(
    'ERR_HPFORMER_CHECKPOINT',
    `${where}: expected content with SHA-256 ${describe(expected)}, got ${hash}; the file was changed`,
  );
}
