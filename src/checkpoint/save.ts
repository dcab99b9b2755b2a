import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import { writeAtomically } from '../files';
import { pathOf } from './file';
import { configKey, writeConfigMetadata } from './format';
import { littleEndianBytes } from './load';
import { parameterShapes } from './names';
import { type WrittenTensor, writeSafetensors } from './safetensors';
import { bundleHash, bundleKeys } from './seal';
import type { WeightTensor } from './tensors';

/**
 * A checkpoint as safetensors bytes: canonical names, float32 or float64 as the weights are, the configuration in the
 * metadata. The same model gives the same bytes.
 *
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` when the weights are not those of the configuration.
 */
export function serializeCheckpoint(
  config: HPformerConfig,
  weights: ReadonlyMap<string, WeightTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const tensors = new Map<string, WrittenTensor>();
  const shapes = parameterShapes(config);
  for (const [name, dims] of shapes) {
    const weight = weights.get(name);
    if (!weight || weight.dims.join() !== dims.join()) {
      throw new HPformerError(
        'ERR_HPFORMER_CHECKPOINT',
        `${name}: expected [${dims.join(', ')}], got ${weight ? `[${weight.dims.join(', ')}]` : 'no tensor'}`,
      );
    }
    const type = weight.data.BYTES_PER_ELEMENT === 8 ? 'F64' : 'F32';
    tensors.set(name, { type, dims, bytes: littleEndianBytes(weight.data) });
  }
  for (const name of weights.keys()) {
    if (!shapes.has(name))
      throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${name}: the configuration has no such tensor`);
  }
  const all: Record<string, string> = { ...metadata, [configKey]: writeConfigMetadata(config) };
  // A bundle stays one: what is written may differ from what was read, by the configuration that `load` was given.
  return writeSafetensors(
    tensors,
    bundleKeys.content in all ? { ...all, [bundleKeys.hash]: bundleHash({ tensors, metadata: all }) } : all,
  );
}

/**
 * Writes a checkpoint as a safetensors file, atomically: a temporary file beside it, flushed, then renamed. A reader sees
 * the old file or the new one.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` when it cannot be written, `ERR_HPFORMER_CHECKPOINT` as {@link serializeCheckpoint}.
 */
export async function saveCheckpoint(
  path: string | URL,
  config: HPformerConfig,
  weights: ReadonlyMap<string, WeightTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeAtomically(pathOf(path, 'path', 'a path or a file: URL'), serializeCheckpoint(config, weights, metadata));
}
