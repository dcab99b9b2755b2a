import { createHash } from 'node:crypto';
import { endianness } from 'node:os';
import { mergeConfigs } from '../config/merge';
import type { HPformerConfig } from '../config/types';
import { validateConfig } from '../config/validate';
import { HPformerError } from '../errors';
import { readWhole } from '../files';
import { assemble, nameTensors } from './assemble';
import { type CheckpointSource, isBytes, pathOf } from './file';
import { configKey, readConfigMetadata } from './format';
import { checkKnown, inferConfig } from './infer';
import { parameterCount } from './names';
import { readSafetensors } from './safetensors';
import { checkSeal } from './seal';
import type { StateDict, WeightTensor } from './tensors';
import { readTorch, torchFormOf } from './torch/read';

export type { CheckpointSource } from './file';

/** A checkpoint, checked and complete. */
export interface Checkpoint {
  /** Deep-frozen and complete. */
  config: HPformerConfig;
  /** By canonical name (names.ts), row-major; every parameter of the configuration and nothing else; all values finite. */
  weights: Map<string, WeightTensor>;
  /** SHA-256 (hex) of the configuration and all tensors. */
  key: string;
  parameterCount: { used: number; trainable: number };
  /** Strings kept in the file besides the configuration; empty for `.pt`. */
  metadata: Record<string, string>;
}

/** Bytes of a typed array as they lie in memory: little-endian on every platform that Node's binaries exist for but s390x. */
export function littleEndianBytes(data: Float32Array | Float64Array): Uint8Array {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (endianness() === 'LE') return bytes;
  const swapped = Buffer.from(bytes);
  return data.BYTES_PER_ELEMENT === 8 ? swapped.swap64() : swapped.swap32();
}

/** Digest of a model: equal exactly when configuration and every tensor are (names of labels included). */
export function checkpointKey(config: HPformerConfig, weights: ReadonlyMap<string, WeightTensor>): string {
  const hash = createHash('sha256').update(JSON.stringify(config));
  for (const [name, { dims, data }] of weights) {
    hash.update(`\n${name} ${data.BYTES_PER_ELEMENT} ${dims.join(',')}\n`).update(littleEndianBytes(data));
  }
  return hash.digest('hex');
}

/**
 * Reads the tensors of a checkpoint of any understood format, told by its first bytes.
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
function readStateDict(bytes: Uint8Array, where: string): StateDict {
  if (torchFormOf(bytes)) return readTorch(bytes, where);
  if (bytes[8] === 0x7b) return readSafetensors(bytes, where);
  const got =
    bytes.length === 0 ? 'no bytes' : `bytes that begin ${Buffer.from(bytes.subarray(0, 12)).toString('hex')}`;
  throw new HPformerError('ERR_HPFORMER_FILE', `${where}: expected a safetensors or PyTorch file, got ${got}`);
}

/**
 * A checkpoint from its bytes: see {@link loadCheckpoint}.
 * @param where begins error messages.
 * @param own nobody else has these bytes: large tensors may stay where they are.
 */
export function parseCheckpoint(bytes: Uint8Array, config?: unknown, where = 'checkpoint', own = false): Checkpoint {
  const state = readStateDict(bytes, where);
  checkSeal(state, where);
  const named = nameTensors(state, where);
  const known = mergeConfigs(readConfigMetadata(state.metadata, where), config);
  const shapes = new Map([...named.parameters].map(([name, { tensor }]) => [name, tensor.dims]));
  const merged = mergeConfigs(inferConfig(shapes, named.family, named.dead, known, state.args), known);
  checkKnown(merged, where);
  const complete = validateConfig(merged);
  const weights = assemble(complete, named, where, own);
  const { [configKey]: _, ...metadata } = state.metadata;
  return {
    config: complete,
    weights,
    key: checkpointKey(complete, weights),
    parameterCount: parameterCount(complete),
    metadata,
  };
}

/** {@link loadCheckpoint} of one file, by path. */
export async function loadCheckpointFile(path: string, config?: unknown): Promise<Checkpoint> {
  return parseCheckpoint(await readWhole(path), config, path, true);
}

/**
 * Loads a safetensors or PyTorch checkpoint (design section 2, Load): our tensor names or either upstream family's, also
 * inside a fairseq file, also in half precision. Nothing in it is executed and nothing is fetched.
 *
 * @param source path, `file:` URL or bytes (read before this returns).
 * @param config a (partial) configuration; beats the file's own, which beats what keys and shapes tell.
 * @throws HPformerError `ERR_HPFORMER_FILE` when it cannot be read or is not what its format requires,
 * `ERR_HPFORMER_CHECKPOINT` when its tensors do not fit, `ERR_HPFORMER_CONFIG` when the configuration is invalid or
 * something must be given that the file cannot tell, `ERR_HPFORMER_TYPE` for another kind of source.
 */
export async function loadCheckpoint(source: CheckpointSource, config?: unknown): Promise<Checkpoint> {
  if (!isBytes(source)) return loadCheckpointFile(pathOf(source), config);
  // Shared memory may change while it is read.
  const shared = Object.prototype.toString.call(source.buffer) === '[object SharedArrayBuffer]';
  return parseCheckpoint(shared ? source.slice() : source, config, 'checkpoint');
}
