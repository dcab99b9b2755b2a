/** `bench kernels`: every kernel of `kernels.*` on the decompensation model's stages, each checked before it is timed. */
import { initialWeights } from '../checkpoint/init';
import { serializeCheckpoint } from '../checkpoint/save';
import { presets } from '../config/presets';
import { segmentsOf } from '../config/segments';
import type { HPformerConfig } from '../config/types';
import { HPformer } from '../model/hpformer';
import { type KernelName, kernels, timeOnDevice } from '../model/kernels';
import { Tensor } from '../tensor/tensor';
import { bounds, type Contestant, copyOf, outputsError, rotating, uniform } from './benchTiming';

/** Sequences and steps of the problem. */
export interface Shape {
  batch: number;
  steps: number;
}

/** The model whose stages and whole are timed. */
export const benchedConfig = ({ steps }: Shape): HPformerConfig =>
  presets.decompensation(steps === 504 ? {} : { segments: { steps: null } });

export const benchedFeatures = ({ batch, steps }: Shape): Tensor =>
  new Tensor('float32', uniform(batch * steps * 76), [batch, steps, 76]);

interface Call {
  inputs: Record<string, Tensor>;
  options: Record<string, number | string | boolean>;
  flops: number;
  /** What the outputs must be, by name: all of them. */
  expected: Record<string, Float64Array>;
}

/** Whole stages of the model; all other kernels are its single steps. */
const whole: readonly string[] = ['tdhp', 'layer', 'head'];

/** Name of a kernel's row: `fused tdhp`, `unfused norm`. */
export const rowName = (kernel: string) => `${whole.includes(kernel) ? 'fused' : 'unfused'} ${kernel}`;

/** Names of all rows of `kernels.*`. */
export const stageRows = Object.keys(kernels).map(rowName);

/** Inputs, options, operations and expected result of every kernel, from a trace of the double-precision reference. */
export async function stageCalls(shape: Shape): Promise<Record<KernelName, Call>> {
  const { batch, steps } = shape;
  const config = benchedConfig(shape);
  const { hidden, heads } = config;
  const weights = initialWeights(config, 2023);
  const features = benchedFeatures(shape);
  const reference = await HPformer.load(serializeCheckpoint(config, weights), { device: 'reference' });
  const trace: Record<string, Tensor> = await reference.trace({ features });
  const weighed: Record<string, Tensor> = await reference.run(
    { features },
    { outputs: ['segmentAttention', 'intraAttention'] },
  );
  reference.dispose();
  const single = (tensor: Tensor, dims: readonly number[] = tensor.dims) =>
    new Tensor('float32', Float32Array.from(tensor.data as Float64Array), [...dims]);
  const w = (name: string) => {
    const { data, dims } = weights.get(name)!;
    return new Tensor('float32', Float32Array.from(data), [...dims]);
  };
  const stage = (name: string, output = 'out') => ({ [output]: trace[name]!.data as Float64Array });
  const attention = (name: string) => ({ weights: weighed[name]!.data as Float64Array });
  const { count, length } = segmentsOf(config, steps);
  const cells = batch * steps;
  const rows = [cells, hidden] as const;
  const spread = cells * count * hidden;
  const embedded = single(trace.embedded!);
  const keys = single(trace.keys!);
  const [means, extra, intra] = [trace.segmentPool!, trace.extraSegment!, trace.intraSegment!].map((t) => single(t));
  const fusion = { weight: w('tdhp.fusion.weight'), bias: w('tdhp.fusion.bias') };
  const norm = (i: 1 | 2) => ({
    [`norm${i}Weight`]: w(`layers.0.norm${i}.weight`),
    [`norm${i}Bias`]: w(`layers.0.norm${i}.bias`),
  });
  const flat = single(embedded, rows);
  const normed = { x: flat, weight: w('layers.0.norm1.weight'), bias: w('layers.0.norm1.bias') };
  const fed = { x: flat, weight: w('layers.0.feedForward.weight'), bias: w('layers.0.feedForward.bias') };
  const call = (
    inputs: Record<string, Tensor>,
    options: Call['options'],
    flops: number,
    expected: Call['expected'],
  ): Call => ({ inputs, options, flops, expected });
  return {
    embed: call(
      { x: features, weight: w('embedding.weight'), bias: w('embedding.bias') },
      { kind: 'features', positions: 'interleaved' },
      2 * cells * 76 * hidden,
      stage('embedded'),
    ),
    segmentPool: call(
      { x: embedded },
      { segments: count, length, pooling: 'mean' },
      cells * hidden,
      stage('segmentPool'),
    ),
    extraSegmentAttention: call({ x: means! }, {}, 4 * batch * count * count * hidden, {
      ...stage('extraSegment'),
      ...attention('segmentAttention'),
    }),
    intraSegmentAttention: call({ extra: extra!, x: embedded }, { length }, 4 * cells * hidden, {
      ...stage('intraSegment'),
      ...attention('intraAttention'),
    }),
    fusion: call({ extra: extra!, intra: intra!, ...fusion }, {}, 4 * batch * count * hidden * hidden, stage('keys')),
    tdhp: call(
      { x: embedded, ...fusion },
      { segments: count, length, pooling: 'mean' },
      5 * cells * hidden + 4 * batch * count * (count + hidden) * hidden,
      stage('keys'),
    ),
    // These three have no traced stage of their own: their formulas on their float32 inputs give the expectation.
    keyAttention: call({ x: embedded, keys }, { heads }, 4 * spread, plainAttention({ x: embedded, keys }, heads)),
    norm: call(normed, { norm: 'layernorm' }, 7 * cells * hidden, { out: plainNorm(normed) }),
    dense: call(fed, { activation: 'relu' }, 2 * cells * hidden * hidden, { out: plainDense(fed) }),
    layer: call(
      {
        x: embedded,
        keys,
        output: w('layers.0.output.weight'),
        feedForward: w('layers.0.feedForward.weight'),
        feedForwardBias: w('layers.0.feedForward.bias'),
        ...norm(1),
        ...norm(2),
      },
      { heads, norm: 'layernorm', activation: 'relu' },
      4 * spread + 4 * cells * hidden * hidden,
      stage('layer.0'),
    ),
    head: call(
      { x: single(trace.encoded!, rows), weight: w('head.output.weight'), bias: w('head.output.bias') },
      { link: 'sigmoid' },
      2 * cells * hidden,
      { ...stage('logits', 'logits'), ...stage('probabilities', 'probabilities') },
    ),
  };
}

type Inputs = Record<string, Tensor>;
const floats = (tensor: Tensor | undefined) => tensor!.data as Float32Array;

function plainNorm({ x, weight, bias }: Inputs): Float64Array {
  const [rows, hidden] = x!.dims as [number, number];
  const out = new Float64Array(rows * hidden);
  for (let r = 0; r < rows; r++) {
    const row = floats(x).subarray(r * hidden, (r + 1) * hidden);
    const mean = row.reduce((a, b) => a + b, 0) / hidden;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / hidden;
    for (let c = 0; c < hidden; c++)
      out[r * hidden + c] = ((row[c]! - mean) / Math.sqrt(variance + 1e-5)) * floats(weight)[c]! + floats(bias)[c]!;
  }
  return out;
}

function plainDense({ x, weight, bias }: Inputs): Float64Array {
  const [rows, inputs] = x!.dims as [number, number];
  const outputs = weight!.dims[0]!;
  const out = new Float64Array(rows * outputs);
  for (let r = 0; r < rows; r++) {
    const row = floats(x).subarray(r * inputs, (r + 1) * inputs);
    for (let c = 0; c < outputs; c++) {
      let sum = floats(bias)[c]!;
      for (let k = 0; k < inputs; k++) sum += row[k]! * floats(weight)[c * inputs + k]!;
      out[r * outputs + c] = Math.max(0, sum);
    }
  }
  return out;
}

function plainAttention({ x, keys }: Inputs, heads: number): Call['expected'] {
  const [batch, steps, hidden] = x!.dims as [number, number, number];
  const segments = keys!.dims[1]!;
  const width = hidden / heads;
  const out = new Float64Array(batch * steps * hidden);
  const weights = new Float64Array(batch * steps * heads * segments);
  for (let r = 0; r < batch * steps; r++) {
    const row = floats(x).subarray(r * hidden, (r + 1) * hidden);
    const base = Math.floor(r / steps) * segments * hidden;
    for (let g = 0; g < hidden; g += width) {
      const scores = Array.from({ length: segments }, (_, s) => {
        let dot = 0;
        for (let c = g; c < g + width; c++) dot += row[c]! * floats(keys)[base + s * hidden + c]!;
        return Math.exp(dot / Math.sqrt(width));
      });
      const total = scores.reduce((a, b) => a + b, 0);
      weights.set(
        scores.map((score) => score / total),
        (r * heads + g / width) * segments,
      );
      for (let c = g; c < g + width; c++)
        for (let s = 0; s < segments; s++)
          out[r * hidden + c]! += (scores[s]! / total) * floats(keys)[base + s * hidden + c]!;
    }
  }
  return { out, weights };
}

/** Bytes that a kernel touches once: inputs and outputs. */
const bytesOf = (tensors: readonly Tensor[]) => tensors.reduce((sum, { data }) => sum + data.byteLength, 0);

/**
 * The kernels whose row `wanted` takes, on the processor's level `isa` or on a CUDA device. There a call is timed on data that is on
 * the device already.
 */
export function stageContestants(
  calls: Readonly<Record<string, Call>>,
  shape: Shape,
  place: { isa: string } | { device: `cuda:${number}` },
  wanted: (name: string) => boolean,
): Contestant[] {
  const cuda = 'device' in place ? place.device : undefined;
  return Object.entries(calls).flatMap(([name, { inputs, options, flops, expected }]): Contestant[] => {
    if (!wanted(rowName(name))) return [];
    const kernel = name as KernelName;
    const there = cuda === undefined ? options : { ...options, device: cuda };
    const first = kernels[kernel](inputs, there);
    const error = Object.keys(first).every((output) => output in expected) ? outputsError(first, expected) : Number.NaN;
    const row: Contestant['row'] = {
      name: rowName(name),
      ...(cuda === undefined ? { device: 'cpu', ...place } : { device: cuda }),
      checked: error <= bounds.float32,
      error,
      flops,
      bytes: bytesOf([...Object.values(inputs), ...Object.values(first)]),
      ...shape,
    };
    if (cuda === undefined) {
      const copy = (all: Call['inputs']) => Object.fromEntries(Object.entries(all).map(([key, t]) => [key, copyOf(t)]));
      const run = (all: Call['inputs']) => kernels[kernel](all, options);
      return [{ row, call: rotating(run, inputs, copy, row.bytes!) }];
    }
    const own = (repetitions: number) => timeOnDevice(kernel, inputs, { ...options, device: cuda }, repetitions).times;
    return [{ row, times: own }];
  });
}
