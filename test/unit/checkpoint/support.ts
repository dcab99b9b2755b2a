import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readSafetensors } from '../../../src/checkpoint/safetensors';
import { type StoredTensor, widen } from '../../../src/checkpoint/tensors';
import type { HPformerConfig } from '../../../src/config/types';
import { HPformerError } from '../../../src/errors';

export const folder = join(__dirname, '..', '..', 'fixtures', 'reference');

export const bytesOf = (file: string): Uint8Array => new Uint8Array(readFileSync(join(folder, file)));

/** Cases of the published code's fixtures, by stem. */
export const cases = readdirSync(folder)
  .filter((file) => file.endsWith('.safetensors'))
  .map((file) => file.replace('.safetensors', ''));

/** A fixture's state dict (keys without `param.`) and its metadata. */
export function fixture(name: string): { state: Map<string, StoredTensor>; metadata: Record<string, string> } {
  const { tensors, metadata } = readSafetensors(bytesOf(`${name}.safetensors`));
  const state = new Map(
    [...tensors].filter(([key]) => key.startsWith('param.')).map(([key, value]) => [key.slice(6), value]),
  );
  return { state, metadata };
}

/** Our configuration of a fixture, from the upstream one in its metadata. */
export function configOf(metadata: Record<string, string>): HPformerConfig {
  const from = JSON.parse(metadata.config!);
  if (from.family === 'health') {
    const perStep = from.task === 'dp' || from.task === 'los';
    return {
      embedding: { kind: 'features', size: from.input_dim },
      positions: { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false },
      embeddingNorm: false,
      hidden: from.hidden_dim,
      heads: from.n_heads,
      layers: from.n_layers,
      tiedLayers: false,
      activation: 'relu',
      norm: 'layernorm',
      segments: { rule: 'upstream', times: 1, pooling: 'mean', steps: from.n_steps, over: 'padded' },
      readout: perStep ? 'steps' : 'step',
      sequences: 1,
      head: { layers: [], labels: from.label_dim, bias: true, link: from.task === 'los' ? 'softmax' : 'sigmoid' },
    };
  }
  const text = from.input_type === 'text';
  return {
    embedding: text ? { kind: 'tokens', vocabulary: from.vocab_size, padding: from.padding_idx } : { kind: 'scalar' },
    positions: from.learned_pos
      ? { kind: 'learned', maximum: from.max_positions }
      : { kind: 'sinusoidal', layout: 'halves', scaleInput: true },
    embeddingNorm: from.encoder_normalize_before,
    hidden: from.embedding_dim,
    heads: from.num_heads,
    layers: from.num_layers,
    tiedLayers: from.tie_layer_weights,
    activation: from.activation_fn,
    norm: from.norm_layout === 'plain' ? 'layernorm' : from.norm_type,
    segments: { rule: 'upstream', times: from.k_times, pooling: from.pooling, steps: null, over: 'padded' },
    readout: 'mean',
    sequences: from.dual_input ? 2 : 1,
    head: {
      layers: Array.from({ length: from.classifier_layers }, () => ({
        size: from.classifier_out_dim,
        activation: from.classifier_activation_fn,
      })),
      labels: from.num_classes,
      bias: false,
      link: 'softmax',
    },
  };
}

/** Values of a stored tensor. */
export const valuesOf = (tensor: StoredTensor): number[] => [...widen('expected', tensor).data];

/** What a call throws: its code and message; fails the test when it is no HPformerError. */
export function errorOf(run: () => unknown): { code: string; message: string } {
  try {
    run();
  } catch (error) {
    if (!(error instanceof HPformerError)) throw error;
    return { code: error.code, message: error.message };
  }
  throw new Error('expected an HPformerError, nothing was thrown');
}

/** {@link errorOf} of a promise. */
export async function rejectionOf(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  return errorOf(() => {
    if (outcome) throw outcome.error;
  });
}
