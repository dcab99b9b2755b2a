import { codedError, HPformerError } from '../errors';
import type { NativeReal } from '../native/addon';
import { loadAddon } from '../native/load';
import { ordinals } from '../native/spec';
import { statusError } from '../native/status';
import { readTensor, toInt32, toReal } from '../tensor/convert';
import { describe, elementCount } from '../tensor/shape';
import { Tensor } from '../tensor/tensor';
import { defaultMaxBytes } from './options';
import type { FeedValue, RealTensor } from './types';

/** Dims of a kernel's tensor: a size by name (bound by the first tensor that has it, or an option), `2*size`, or a number. */
export type KernelDims = readonly (string | number)[];

/** Which tensors and options a kernel takes, and what it returns. A dim is a size by name, `2*size`, or a number. */
export interface KernelSignature {
  /** What the kernel computes. */
  doc: string;
  /** Tensors that it needs, with their dims. */
  inputs: Readonly<Record<string, KernelDims>>;
  /** Further inputs that depend on a choice: option name → its value → tensors. */
  inputsBy?: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, KernelDims>>>>>>;
  /** Tensors that it takes where they are given. */
  optional?: Readonly<Record<string, KernelDims>>;
  /** Inputs that are integers. */
  integerInputs?: readonly string[];
  /** Options that are integers of at least `[0]`, with a default where `[1]` is one. */
  integers?: Readonly<Record<string, readonly [minimum: number, fallback?: number]>>;
  /** Options that are names, sent as their ordinals (src/native/spec.ts). */
  choices?: Readonly<Record<string, keyof typeof ordinals>>;
  /** Tensors that it returns. */
  outputs: Readonly<Record<string, KernelDims>>;
}

const rows = ['batch', 'steps', 'hidden'] as const;
const segmentRows = ['batch', 'segments', 'hidden'] as const;
const square = ['hidden', 'hidden'] as const;
const normOf = (prefix: string) => ({
  [`${prefix}Bias`]: ['hidden'],
  [`${prefix}Mean`]: ['hidden'],
  [`${prefix}Variance`]: ['hidden'],
});
const cut = { segments: [1], length: [1] } as const;

/**
 * One entry per kernel. Native code (binding/model/kernels.h) gets every bound size and option as a number under its own
 * name. All tensors of a call are float32 (the CPU backend's kernels), or all float64 (the reference). `embed`, `segmentPool`,
 * `extraSegmentAttention`, `intraSegmentAttention`, `fusion`, `keyAttention`, `dense` and `norm` are the single steps;
 * `tdhp`, `layer` and `head` are whole stages. Sources: reference sections 1 to 3.
 */
const table: Readonly<Record<KernelName, KernelSignature>> = {
  embed: {
    doc: 'Embedding, positions, optional LayerNorm (normWeight, normBias); rows of padding tokens are 0.',
    inputs: {},
    inputsBy: {
      kind: {
        features: { x: ['batch', 'steps', 'size'], weight: ['hidden', 'size'], bias: ['hidden'] },
        tokens: { tokens: ['batch', 'steps'], weight: ['size', 'hidden'] },
        scalar: { x: ['batch', 'steps'], weight: ['hidden'], bias: ['hidden'] },
      },
    },
    optional: { positions: ['positionRows', 'hidden'], normWeight: ['hidden'], normBias: ['hidden'] },
    integerInputs: ['tokens'],
    integers: { padding: [-1, -1], scaleInput: [0, 0], maximum: [0, 0] },
    choices: { kind: 'embedding', positions: 'positions' },
    outputs: { out: rows },
  },
  segmentPool: {
    doc: 'Mean or maximum of runs of `length` rows; rows after the last are zeros that take part.',
    inputs: { x: rows },
    integers: cut,
    choices: { pooling: 'pooling' },
    outputs: { out: segmentRows },
  },
  extraSegmentAttention: {
    doc: 'softmax(m mᵀ / √d) m over the segment means, and its weights (row = query).',
    inputs: { x: segmentRows },
    outputs: { out: segmentRows, weights: ['batch', 'segments', 'segments'] },
  },
  intraSegmentAttention: {
    doc: 'Each extra row asks the `length` rows of its own segment; appended zero rows are not masked.',
    inputs: { extra: segmentRows, x: rows },
    integers: { length: [1] },
    outputs: { out: segmentRows, weights: ['batch', 'steps'] },
  },
  fusion: {
    doc: 'K_comp = [extra ; intra] weightᵀ + bias.',
    inputs: { extra: segmentRows, intra: segmentRows, weight: ['hidden', '2*hidden'], bias: ['hidden'] },
    outputs: { out: segmentRows },
  },
  tdhp: {
    doc: 'From embedded rows to K_comp.',
    inputs: { x: rows, weight: ['hidden', '2*hidden'], bias: ['hidden'] },
    integers: cut,
    choices: { pooling: 'pooling' },
    outputs: { out: segmentRows },
  },
  keyAttention: {
    doc: 'Each row against the compressed keys, head by head; the keys are the values.',
    inputs: { x: rows, keys: segmentRows },
    integers: { heads: [1] },
    outputs: { out: rows, weights: ['batch', 'steps', 'heads', 'segments'] },
  },
  norm: {
    doc: 'Each row normalised; bias, mean and variance as the kind has them (scalenorm: weight [1]).',
    inputs: { x: ['rows', 'hidden'], weight: ['normWidth'] },
    optional: { bias: ['hidden'], mean: ['hidden'], variance: ['hidden'] },
    choices: { norm: 'norm' },
    outputs: { out: ['rows', 'hidden'] },
  },
  dense: {
    doc: 'activation(x weightᵀ + bias).',
    inputs: { x: ['rows', 'inputs'], weight: ['outputs', 'inputs'] },
    optional: { bias: ['outputs'] },
    choices: { activation: 'activation' },
    outputs: { out: ['rows', 'outputs'] },
  },
  layer: {
    doc: 'One HPformer layer.',
    inputs: {
      x: rows,
      keys: segmentRows,
      output: square,
      norm1Weight: ['normWidth'],
      feedForward: square,
      feedForwardBias: ['hidden'],
      norm2Weight: ['normWidth'],
    },
    optional: { ...normOf('norm1'), ...normOf('norm2') },
    integers: { heads: [1] },
    choices: { norm: 'norm', activation: 'activation' },
    outputs: { out: rows },
  },
  head: {
    doc: 'Logits x weightᵀ + bias, and probabilities over the labels (link none: the logits).',
    inputs: { x: ['rows', 'inputs'], weight: ['labels', 'inputs'] },
    optional: { bias: ['labels'] },
    choices: { link: 'link' },
    outputs: { logits: ['rows', 'labels'], probabilities: ['rows', 'labels'] },
  },
};

/** Name of a kernel. */
export type KernelName =
  | 'embed'
  | 'segmentPool'
  | 'extraSegmentAttention'
  | 'intraSegmentAttention'
  | 'fusion'
  | 'tdhp'
  | 'keyAttention'
  | 'norm'
  | 'dense'
  | 'layer'
  | 'head';

/** Tensors by name. */
export type KernelInputs = Readonly<Record<string, FeedValue>>;
/** Options by name; `device` is `cpu` (default) or `cuda:<n>`. */
export type KernelOptions = Readonly<Record<string, number | string | boolean>>;

/** A kernel as a function on tensors; runs on the calling thread. */
export type Kernel = ((inputs: KernelInputs, options?: KernelOptions) => Record<string, RealTensor>) & {
  /** What it computes. */
  readonly doc: string;
  /** Dims of its tensors, and its options. */
  readonly signature: Readonly<KernelSignature>;
};

function fail(code: 'SHAPE' | 'TYPE' | 'RANGE' | 'INPUT' | 'LIMIT', message: string): never {
  throw new HPformerError(`ERR_HPFORMER_${code}`, message);
}

/** The size that one dim stands for, binding a new name to `actual`. */
function sizeOf(sizes: Map<string, number>, dim: string | number, actual: number): number {
  if (typeof dim === 'number') return dim;
  if (dim.startsWith('2*')) return 2 * sizeOf(sizes, dim.slice(2), actual / 2);
  if (!sizes.has(dim)) sizes.set(dim, actual);
  return sizes.get(dim)!;
}

function readOptions(
  name: string,
  spec: KernelSignature,
  options: Readonly<Record<string, unknown>>,
  sizes: Map<string, number>,
): void {
  const legal = [...Object.keys(spec.integers ?? {}), ...Object.keys(spec.choices ?? {})];
  for (const key of Object.keys(options)) {
    if (key !== 'device' && !legal.includes(key))
      fail('INPUT', `kernels.${name}: expected options among ${legal.join(', ') || '(none)'}, got ${describe(key)}`);
  }
  for (const [key, [minimum, fallback]] of Object.entries(spec.integers ?? {})) {
    const given = options[key] ?? fallback;
    const value = typeof given === 'boolean' ? Number(given) : given;
    if (!Number.isSafeInteger(value) || (value as number) < minimum) {
      fail('RANGE', `kernels.${name}: ${key}: expected an integer of at least ${minimum}, got ${describe(given)}`);
    }
    sizes.set(key, value as number);
  }
  for (const [key, family] of Object.entries(spec.choices ?? {})) {
    const names: readonly string[] = ordinals[family];
    const index = names.indexOf(options[key] as string);
    if (index < 0)
      fail('RANGE', `kernels.${name}: ${key}: expected one of ${names.join(', ')}, got ${describe(options[key])}`);
    sizes.set(key, index);
  }
}

/** The inputs that these options ask for. */
function requiredInputs(spec: KernelSignature, options: Readonly<Record<string, unknown>>): Record<string, KernelDims> {
  const chosen = Object.entries(spec.inputsBy ?? {}).map(([option, byValue]) => byValue[options[option] as string]);
  return Object.assign({}, spec.inputs, ...chosen);
}

function makeKernel(name: KernelName): Kernel {
  const spec: KernelSignature = table[name];
  const run = (inputs: KernelInputs, options: KernelOptions = {}) => {
    try {
      return compute(name, inputs, options);
    } catch (error) {
      throw codedError(`kernels.${name}`, error);
    }
  };
  return Object.freeze(Object.assign(run, { doc: spec.doc, signature: spec }));
}

/** Ordinal of the CUDA device of a call; undefined: the CPU. */
function ordinalOf(name: string, device: unknown): number | undefined {
  if (device === undefined || device === 'cpu') return undefined;
  const ordinal = typeof device === 'string' ? /^cuda:(0|[1-9]\d{0,3})$/.exec(device) : null;
  if (ordinal === null) fail('RANGE', `kernels.${name}: device: expected cpu or cuda:<n>, got ${describe(device)}`);
  return Number(ordinal[1]);
}

/** Checks a call, runs it, and returns its tensors. `times`: see NativeAddon.kernel. */
function compute(
  name: KernelName,
  inputs: KernelInputs,
  options: KernelOptions,
  times?: Float64Array,
): Record<string, RealTensor> {
  const spec: KernelSignature = table[name];
  if (typeof inputs !== 'object' || inputs === null)
    fail('TYPE', `kernels.${name}: expected tensors by name, got ${describe(inputs)}`);
  if (typeof options !== 'object' || options === null)
    fail('TYPE', `kernels.${name}: expected options by name, got ${describe(options)}`);
  const device = ordinalOf(name, options.device);
  const sizes = new Map<string, number>();
  readOptions(name, spec, options, sizes);
  const required = requiredInputs(spec, options);
  const legal = { ...required, ...spec.optional };
  for (const key of Object.keys(inputs)) {
    if (!Object.hasOwn(legal, key))
      fail('INPUT', `kernels.${name}: expected inputs among ${Object.keys(legal).join(', ')}, got ${describe(key)}`);
  }
  const arrays: Record<string, NativeReal | Int32Array> = {};
  let double: boolean | undefined;
  for (const [key, dims] of Object.entries(legal)) {
    const where = `kernels.${name}: ${key}`;
    const value = inputs[key];
    if (value === undefined) {
      if (Object.hasOwn(required, key)) fail('INPUT', `${where}: expected [${dims.join(', ')}], got nothing`);
      continue;
    }
    const tensor = readTensor(where, value, (_, array) =>
      fail('TYPE', `${where}: expected a tensor, got a bare ${array}`),
    );
    const integers = spec.integerInputs?.includes(key) === true;
    if (!integers) double ??= tensor.type === 'float64';
    if (!integers && double !== (tensor.type === 'float64'))
      fail('TYPE', `${where}: expected float64 for all tensors or for none, got ${tensor.type}`);
    if (dims.length !== tensor.dims.length)
      fail('SHAPE', `${where}: expected [${dims.join(', ')}], got [${tensor.dims.join(', ')}]`);
    const expected = dims.map((dim, i) => sizeOf(sizes, dim, tensor.dims[i]!));
    if (expected.some((size, i) => size !== tensor.dims[i] || size < 1)) {
      fail(
        'SHAPE',
        `${where}: expected [${dims.join(', ')}] = [${expected.join(', ')}], got [${tensor.dims.join(', ')}]`,
      );
    }
    arrays[key] = integers ? toInt32(where, tensor) : toReal(where, tensor, double === true);
  }
  const outputs: Record<string, NativeReal> = {};
  const shapes: Record<string, number[]> = {};
  let bytes = 0;
  for (const [key, dims] of Object.entries(spec.outputs)) {
    shapes[key] = dims.map((dim) => sizeOf(sizes, dim, 0));
    bytes += elementCount(`kernels.${name}: ${key}`, shapes[key]) * (double ? 8 : 4);
  }
  if (bytes > defaultMaxBytes)
    fail('LIMIT', `kernels.${name}: expected results of at most ${defaultMaxBytes} bytes, these need ${bytes}`);
  for (const [key, dims] of Object.entries(shapes)) {
    const count = elementCount(key, dims);
    outputs[key] = double ? new Float64Array(count) : new Float32Array(count);
  }
  const { code, message } = loadAddon().kernel(name, Object.fromEntries(sizes), arrays, outputs, device, times);
  // Native messages begin with the kernel's name, too.
  if (code !== 0) throw statusError(code, `kernels.${name}: ${message.replace(`${name}.`, '')}`);
  const results: Record<string, RealTensor> = {};
  for (const key of Object.keys(outputs))
    results[key] = new Tensor(double ? 'float64' : 'float32', outputs[key]!, shapes[key]!);
  return results;
}

/**
 * Milliseconds of `repetitions` calls of a kernel on a CUDA device, one after the other on data that is there already, after one call
 * whose results are returned: launches and the wait for them, no copies.
 */
export function timeOnDevice(
  name: KernelName,
  inputs: KernelInputs,
  options: KernelOptions & { device: `cuda:${number}` },
  repetitions: number,
): { results: Record<string, RealTensor>; times: Float64Array } {
  const times = new Float64Array(repetitions);
  return { results: compute(name, inputs, options, times), times };
}

/**
 * Each kernel as a function on tensors, unfused and fused: `kernels.fusion({ extra, intra, weight, bias })`.
 * float32 tensors run the kernels that models on the CPU run, float64 tensors the reference. With option `device: 'cuda:0'` float32
 * tensors run the kernels of that device (`tdhp` and `layer` the fused ones where the width has them), copies included.
 * `kernels.<name>.signature` says which tensors and options it takes.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT`, `_TYPE`, `_SHAPE`, `_RANGE`, `_DEVICE`, `_MEMORY`, and `_LIMIT` for results beyond 2 GiB.
 */
export const kernels: Readonly<Record<KernelName, Kernel>> = Object.freeze(
  Object.fromEntries((Object.keys(table) as KernelName[]).map((name) => [name, makeKernel(name)])) as Record<
    KernelName,
    Kernel
  >,
);
