/** The cases of `bench:peers`: sizes of the published models, inputs from one small generator. */
import type { Api, Config, Feeds, OnnxVariant } from './package';

export interface Case {
  name: string;
  batches: number[];
  steps: number;
  /** Built from the package's presets. */
  config: (presets: Api['presets']) => Config;
  /** ORT graphs that compete to be the opponent; the fastest in a short trial is measured. */
  graphs: OnnxVariant[];
  /** 8-bit graph reported beside it. */
  int8?: OnnxVariant;
  /** `latency`: batch 1 through `runSync`, in microseconds. */
  kind: 'throughput' | 'latency';
  /** The opponent is a full-attention Transformer of the same size. */
  transformer?: boolean;
  /** One timed block is about this many milliseconds at least. */
  blockMs: number;
}

const sliced: OnnxVariant[] = ['bdiag', 'fold'];
const all: OnnxVariant[] = ['fold', 'bdiag'];

export const cases: Case[] = [
  {
    name: 'mortality',
    batches: [256, 1024],
    steps: 48,
    config: (p) => p.mortality(),
    graphs: sliced,
    int8: 'bdiag8',
    kind: 'throughput',
    blockMs: 40,
  },
  {
    name: 'mortality-exported',
    batches: [256],
    steps: 48,
    config: (p) => p.mortality(),
    graphs: ['written'],
    kind: 'throughput',
    blockMs: 40,
  },
  {
    name: 'mortality-latency',
    batches: [1],
    steps: 48,
    config: (p) => p.mortality(),
    graphs: sliced,
    int8: 'bdiag8',
    kind: 'latency',
    blockMs: 20,
  },
  {
    name: 'decompensation',
    batches: [8, 32],
    steps: 504,
    config: (p) => p.decompensation(),
    graphs: all,
    int8: 'fold8',
    kind: 'throughput',
    blockMs: 60,
  },
  {
    name: 'text',
    batches: [8],
    steps: 4000,
    config: (p) => p.text({ embedding: { kind: 'tokens', vocabulary: 169, padding: 1 } }),
    graphs: all,
    int8: 'fold8',
    kind: 'throughput',
    blockMs: 100,
  },
  {
    name: 'image',
    batches: [32],
    steps: 1024,
    config: (p) => p.image(),
    graphs: all,
    int8: 'fold8',
    kind: 'throughput',
    blockMs: 100,
  },
  {
    name: 'long',
    batches: [4],
    steps: 16384,
    config: (p) =>
      p.image({ hidden: 128, layers: 6, head: { layers: [{ size: 256, activation: 'gelu' }], labels: 2 } }),
    graphs: all,
    int8: 'fold8',
    kind: 'throughput',
    blockMs: 100,
  },
  {
    name: 'transformer-4096',
    batches: [1],
    steps: 4096,
    config: (p) => p.decompensation({ segments: { steps: null } }),
    graphs: [],
    kind: 'throughput',
    transformer: true,
    blockMs: 100,
  },
];

/** Numbers in [-1, 1) from a linear congruential generator: the same input everywhere. */
export function uniform(count: number, seed = 12345): Float32Array {
  const data = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    data[i] = (state >>> 8) / 8388608 - 1;
  }
  return data;
}

type AnyTensor = { type: string; data: Float32Array | Int32Array; dims: number[] };

/** Input of a case: features or pixels in [-1, 1), or token ids none of which is padding. */
export function inputOf(config: Config, batch: number, steps: number): { name: keyof Feeds; tensor: AnyTensor } {
  const { embedding } = config;
  if (embedding.kind === 'features') {
    const dims = [batch, steps, embedding.size];
    return { name: 'features', tensor: { type: 'float32', data: uniform(batch * steps * embedding.size), dims } };
  }
  const data = uniform(batch * steps);
  const dims = [batch, steps];
  if (embedding.kind === 'scalar') return { name: 'values', tensor: { type: 'float32', data, dims } };
  const first = embedding.padding === null ? 0 : embedding.padding + 1;
  const ids = Int32Array.from(data, (x) => first + Math.floor(((x + 1) / 2) * (embedding.vocabulary - first)));
  return { name: 'tokens', tensor: { type: 'int32', data: ids, dims } };
}
