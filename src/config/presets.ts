import { type DeepPartial, mergeConfigs } from './merge';
import type { HPformerConfig } from './types';
import { validateConfig } from './validate';

/** A published configuration with `overrides` laid over it key by key: a fresh object at each call. */
export type Preset = (overrides?: DeepPartial<HPformerConfig>) => HPformerConfig;

/** A fresh, unfrozen config each time: the published run with the overrides laid over it, validated. */
function preset(build: () => DeepPartial<HPformerConfig>): Preset {
  return (overrides) => structuredClone(validateConfig(mergeConfigs(build(), overrides))) as HPformerConfig;
}

/** Reference section 4: the published full-size health model. */
function health(
  readout: 'step' | 'steps',
  steps: number,
  labels: number,
  link: 'sigmoid' | 'softmax',
): DeepPartial<HPformerConfig> {
  return {
    embedding: { kind: 'features', size: 76 },
    positions: { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false },
    hidden: 128,
    heads: 8,
    layers: 8,
    activation: 'relu',
    norm: 'layernorm',
    segments: { rule: 'upstream', times: 1, pooling: 'mean', steps, over: 'padded' },
    readout,
    head: { layers: [], labels, bias: true, link },
  };
}

interface LongRangeRun {
  embedding: HPformerConfig['embedding'];
  hidden: number;
  layers: number;
  activation: 'silu' | 'gelu';
  norm?: 'batchnorm';
  embeddingNorm: boolean;
  pooling: 'mean' | 'max';
  sequences?: 2;
  /** Width of the one classifier layer, and number of classes. */
  classifier: [number, number];
}

/** Reference section 3.4, the table of runs as logged. */
function longRange(run: LongRangeRun): DeepPartial<HPformerConfig> {
  return {
    embedding: run.embedding,
    positions: { kind: 'sinusoidal', layout: 'halves', scaleInput: true },
    embeddingNorm: run.embeddingNorm,
    hidden: run.hidden,
    heads: 8,
    layers: run.layers,
    activation: run.activation,
    norm: run.norm ?? 'layernorm',
    segments: { rule: 'upstream', times: 1, pooling: run.pooling, steps: null, over: 'padded' },
    readout: 'mean',
    sequences: run.sequences ?? 1,
    head: {
      layers: [{ size: run.classifier[0], activation: 'gelu' }],
      labels: run.classifier[1],
      bias: false,
      link: 'softmax',
    },
  };
}

const text = (vocabulary: number): HPformerConfig['embedding'] => ({ kind: 'tokens', vocabulary, padding: 1 });

/**
 * Configurations of the published runs, a fresh object at each call. `overrides` is a deep partial laid over it, key by
 * key; the result is validated (`ERR_HPFORMER_CONFIG`).
 */
export const presets = {
  /** In-hospital mortality: 48 hours of 76 features, one probability. */
  mortality: preset(() => health('step', 48, 1, 'sigmoid')),
  /** Decompensation: 504 hours, a probability at every hour. */
  decompensation: preset(() => health('steps', 504, 1, 'sigmoid')),
  /** Length of stay: 504 hours, ten classes at every hour (softmax over the classes, unlike upstream's over the batch). */
  lengthOfStay: preset(() => health('steps', 504, 10, 'softmax')),
  /** Phenotyping: 25 labels of one stay. No script was published for it: the mortality model's sizes with the benchmark's labels. */
  phenotyping: preset(() => health('step', 48, 25, 'sigmoid')),
  /** ListOps. */
  listops: preset(() =>
    longRange({
      embedding: text(25),
      hidden: 160,
      layers: 6,
      activation: 'silu',
      embeddingNorm: false,
      pooling: 'mean',
      classifier: [160, 10],
    }),
  ),
  /** Byte-level IMDb sentiment. */
  text: preset(() =>
    longRange({
      embedding: text(169),
      hidden: 256,
      layers: 4,
      activation: 'silu',
      embeddingNorm: true,
      pooling: 'mean',
      classifier: [256, 2],
    }),
  ),
  /** AAN document pairs; two sequences. */
  retrieval: preset(() =>
    longRange({
      embedding: text(105),
      hidden: 128,
      layers: 6,
      activation: 'silu',
      embeddingNorm: false,
      pooling: 'mean',
      sequences: 2,
      classifier: [256, 2],
    }),
  ),
  /** CIFAR-10 in grey, pixel by pixel: (value / 255 − 0.48) / 0.24. */
  image: preset(() =>
    longRange({
      embedding: { kind: 'scalar' },
      hidden: 256,
      layers: 8,
      activation: 'silu',
      embeddingNorm: true,
      pooling: 'mean',
      classifier: [320, 10],
    }),
  ),
  /** Pathfinder, pixel by pixel: (value / 255 − 0.5666) / 0.1888. */
  pathfinder: preset(() =>
    longRange({
      embedding: { kind: 'scalar' },
      hidden: 128,
      layers: 4,
      activation: 'gelu',
      norm: 'batchnorm',
      embeddingNorm: true,
      pooling: 'max',
      classifier: [256, 2],
    }),
  ),
} as const satisfies Record<string, Preset>;

/** Name of a preset. */
export type PresetName = keyof typeof presets;
