import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import type { WeightTensor } from './tensors';

/** Where a checkpoint comes from: a path, a `file:` URL or its bytes. Never the network. */
export type CheckpointSource = string | URL | Uint8Array;

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

/**
 * Loads a safetensors or PyTorch checkpoint (design section 2, Load).
 *
 * @param source path, `file:` URL or bytes.
 * @param config a (partial) configuration; beats the file's own, which beats what keys and shapes tell.
 * @throws HPformerError `ERR_HPFORMER_FILE` when it cannot be read or is not what its format requires,
 * `ERR_HPFORMER_CHECKPOINT` when its tensors do not fit, `ERR_HPFORMER_CONFIG` when the configuration is invalid or
 * something must be given that the file cannot tell.
 */
export async function loadCheckpoint(source: CheckpointSource, config?: unknown): Promise<Checkpoint> {
  void config;
  throw new HPformerError('ERR_HPFORMER_INTERNAL', `checkpoint reading is being built: ${String(source)}`);
}
