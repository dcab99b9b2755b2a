import { HPformerError } from '../errors';
import type { NativeReal } from '../native/addon';
import { loadAddon } from '../native/load';
import { ordinals } from '../native/spec';
import { statusError } from '../native/status';
import { readTensor, toReal } from '../tensor/convert';
import { describe, elementCount } from '../tensor/shape';
import { Tensor } from '../tensor/tensor';
import type { FeedValue, RealTensor } from './types';

/** Dims of a kernel's tensor: a size by name (bound by the first tensor that has it, or an option), `2*size`, or a number. */
type Dims = readonly (string | number)[];

interface KernelSpec {
  doc: string;
  inputs: Readonly<Record<string, Dims>>;
  optional?: Readonly<Record<string, Dims>>;
  /** Options that are integers of at least this. */
  integers?: Readonly<Record<string, number>>;
  /** Options that are names, sent as their ordinals (src/native/spec.ts). */
  choices?: Readonly<Record<string, keyof typeof ordinals>>;
  outputs: Readonly<Record<string, Dims>>;
}

const normInputs = { weight: ['normWidth'], bias: ['d'], mean: ['d'], variance: ['d'] } as const;

function prefixed(prefix: string): Record<string, Dims> {
  return Object.fromEntries(Object.entries(normInputs).map(([name, dims]) => [`${prefix}.${name}`, dims]));
}

const layerInputs = {
  x: ['rows', 'd'],
  keys: ['segments', 'd'],
  'output.weight': ['d', 'd'],
  'norm1.weight': ['normWidth'],
  'feedForward.weight': ['d', 'd'],
  'feedForward.bias': ['d'],
  'norm2.weight': ['normWidth'],
} as const;

/**
 * One entry per kernel. Native code gets every bound size and option as a number under its own name. All tensors of a call
 * are float32, or all float64. `x` and `keys` belong to one sequence. Sources: reference sections 1 and 2.
 */
const table = {
  dense: {
    doc: 'y = activation(x weightᵀ + bias).',
    inputs: { x: ['rows', 'in'], weight: ['out', 'in'] },
    optional: { bias: ['out'] },
    choices: { activation: 'activation' },
    outputs: { y: ['rows', 'out'] },
  },
  norm: {
    doc: 'Each row normalised; bias, mean and variance as the kind has them (scalenorm: weight [1]).',
    inputs: { x: ['rows', 'd'], weight: ['normWidth'] },
    optional: { bias: ['d'], mean: ['d'], variance: ['d'] },
    choices: { norm: 'norm' },
    outputs: { y: ['rows', 'd'] },
  },
  segmentPool: {
    doc: 'Mean or maximum of runs of `length` rows; rows after the last are zeros that take part.',
    inputs: { x: ['steps', 'd'] },
    integers: { segments: 1, length: 1 },
    choices: { pooling: 'pooling' },
    outputs: { pool: ['segments', 'd'] },
  },
  extraSegmentAttention: {
    doc: 'softmax(pool poolᵀ / √d) pool, and its weights (row = query).',
    inputs: { pool: ['segments', 'd'] },
    outputs: { extra: ['segments', 'd'], weights: ['segments', 'segments'] },
  },
  intraSegmentAttention: {
    doc: 'Each extra row asks the `length` rows of its own segment; appended zero rows are not masked.',
    inputs: { extra: ['segments', 'd'], x: ['steps', 'd'] },
    integers: { length: 1 },
    outputs: { intra: ['segments', 'd'], weights: ['steps'] },
  },
  fusion: {
    doc: 'keys = [extra ; intra] weightᵀ + bias.',
    inputs: { extra: ['segments', 'd'], intra: ['segments', 'd'], weight: ['d', '2*d'], bias: ['d'] },
    outputs: { keys: ['segments', 'd'] },
  },
  keyAttention: {
    doc: 'Each row against the compressed keys, head by head; the keys are the values.',
    inputs: { x: ['rows', 'd'], keys: ['segments', 'd'] },
    integers: { heads: 1 },
    outputs: { y: ['rows', 'd'], weights: ['rows', 'heads', 'segments'] },
  },
  layer: {
    doc: 'One HPformer layer, step by step.',
    inputs: layerInputs,
    optional: { ...prefixed('norm1'), ...prefixed('norm2') },
    integers: { heads: 1 },
    choices: { norm: 'norm', activation: 'activation' },
    outputs: { y: ['rows', 'd'] },
  },
  link: {
    doc: 'Probabilities of logits, over the labels.',
    inputs: { logits: ['rows', 'labels'] },
    choices: { link: 'link' },
    outputs: { probabilities: ['rows', 'labels'] },
  },
  tdhp: {
    doc: 'Fused: from embedded rows to the compressed keys.',
    inputs: { x: ['steps', 'd'], weight: ['d', '2*d'], bias: ['d'] },
    integers: { segments: 1, length: 1 },
    choices: { pooling: 'pooling' },
    outputs: { keys: ['segments', 'd'] },
  },
  stack: {
    doc: 'Fused: a tile of rows through `layers` layers of the same weights, depth first.',
    inputs: layerInputs,
    optional: { ...prefixed('norm1'), ...prefixed('norm2') },
    integers: { heads: 1, layers: 1 },
    choices: { norm: 'norm', activation: 'activation' },
    outputs: { y: ['rows', 'd'] },
  },
} as const satisfies Record<string, KernelSpec>;

/** Name of a kernel. */
export type KernelName = keyof typeof table;

/** A kernel as a function on tensors; runs on the calling thread. */
export type Kernel = ((
  inputs: Readonly<Record<string, FeedValue>>,
  options?: Readonly<Record<string, number | string>>,
) => Record<string, RealTensor>) & {
  /** What it computes. */
  readonly doc: string;
  /** Dims of its tensors, and its options. */
  readonly signature: Readonly<KernelSpec>;
};

function fail(code: 'SHAPE' | 'TYPE' | 'RANGE' | 'INPUT', message: string): never {
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
  spec: KernelSpec,
  options: Readonly<Record<string, unknown>>,
  sizes: Map<string, number>,
): void {
  const legal = [...Object.keys(spec.integers ?? {}), ...Object.keys(spec.choices ?? {})];
  for (const key of Object.keys(options)) {
    if (!legal.includes(key))
      fail('INPUT', `kernels.${name}: expected options among ${legal.join(', ') || '(none)'}, got ${describe(key)}`);
  }
  for (const [key, minimum] of Object.entries(spec.integers ?? {})) {
    const value = options[key];
    if (!Number.isSafeInteger(value) || (value as number) < minimum) {
      fail('RANGE', `kernels.${name}: expected ${key} as an integer of at least ${minimum}, got ${describe(value)}`);
    }
    sizes.set(key, value as number);
  }
  for (const [key, family] of Object.entries(spec.choices ?? {})) {
    const names: readonly string[] = ordinals[family];
    const index = names.indexOf(options[key] as string);
    if (index < 0) fail('RANGE', `kernels.${name}: expected ${key} ${names.join(', ')}, got ${describe(options[key])}`);
    sizes.set(key, index);
  }
}

function makeKernel(name: KernelName): Kernel {
  const spec: KernelSpec = table[name];
  const run = (
    inputs: Readonly<Record<string, FeedValue>>,
    options: Readonly<Record<string, number | string>> = {},
  ) => {
    if (typeof inputs !== 'object' || inputs === null)
      fail('TYPE', `kernels.${name}: expected tensors by name, got ${describe(inputs)}`);
    const legal = { ...spec.optional, ...spec.inputs };
    for (const key of Object.keys(inputs)) {
      if (!Object.hasOwn(legal, key))
        fail('INPUT', `kernels.${name}: expected inputs among ${Object.keys(legal).join(', ')}, got ${describe(key)}`);
    }
    const sizes = new Map<string, number>();
    readOptions(name, spec, options, sizes);
    const arrays: Record<string, NativeReal> = {};
    let double: boolean | undefined;
    for (const [key, dims] of Object.entries({ ...spec.inputs, ...spec.optional })) {
      const where = `kernels.${name}: ${key}`;
      const value = inputs[key];
      if (value === undefined) {
        if (Object.hasOwn(spec.inputs, key)) fail('INPUT', `${where}: expected [${dims.join(', ')}], got nothing`);
        continue;
      }
      const tensor = readTensor(where, value, (_, array) =>
        fail('TYPE', `${where}: expected a tensor, got a bare ${array}`),
      );
      double ??= tensor.type === 'float64';
      if (double !== (tensor.type === 'float64'))
        fail('TYPE', `${where}: expected float64 for all tensors or for none, got ${tensor.type}`);
      const expected = dims.map((dim, i) => sizeOf(sizes, dim, tensor.dims[i] ?? 0));
      if (expected.length !== tensor.dims.length || expected.some((size, i) => size !== tensor.dims[i] || size < 1)) {
        fail(
          'SHAPE',
          `${where}: expected [${dims.join(', ')}] = [${expected.join(', ')}], got [${tensor.dims.join(', ')}]`,
        );
      }
      arrays[key] = toReal(where, tensor, double);
    }
    checkSizes(name, sizes, inputs);
    const outputs: Record<string, NativeReal> = {};
    const shapes: Record<string, number[]> = {};
    for (const [key, dims] of Object.entries(spec.outputs)) {
      shapes[key] = dims.map((dim) => sizeOf(sizes, dim, 0));
      const count = elementCount(`kernels.${name}: ${key}`, shapes[key]);
      outputs[key] = double ? new Float64Array(count) : new Float32Array(count);
    }
    const { code, message } = loadAddon().kernel(name, Object.fromEntries(sizes), arrays, outputs);
    if (code !== 0) throw statusError(code, `kernels.${name}: ${message}`);
    const results: Record<string, RealTensor> = {};
    for (const key of Object.keys(outputs))
      results[key] = new Tensor(double ? 'float64' : 'float32', outputs[key]!, shapes[key]!);
    return results;
  };
  return Object.freeze(Object.assign(run, { doc: spec.doc, signature: spec }));
}

/** What the shapes alone do not say. */
function checkSizes(name: string, sizes: Map<string, number>, inputs: Readonly<Record<string, unknown>>): void {
  const size = (key: string) => sizes.get(key);
  const d = size('d');
  const heads = size('heads');
  if (d !== undefined && heads !== undefined && d % heads !== 0) {
    fail('RANGE', `kernels.${name}: expected heads to divide ${d}, got ${heads}`);
  }
  const steps = size('steps');
  const length = size('length');
  const segments = size('segments');
  if (steps !== undefined && length !== undefined && segments !== undefined && segments * length < steps) {
    fail('RANGE', `kernels.${name}: expected segments of ${length} rows to cover ${steps} steps, got ${segments}`);
  }
  const norm = size('norm');
  if (norm === undefined) return;
  const kind = ordinals.norm[norm]!;
  const width = kind === 'scalenorm' ? 1 : d;
  if (size('normWidth') !== width)
    fail('SHAPE', `kernels.${name}: expected norm weight [${width}] for ${kind}, got [${size('normWidth')}]`);
  const needed = kind === 'layernorm' ? ['bias'] : kind === 'batchnorm' ? ['bias', 'mean', 'variance'] : [];
  for (const prefix of name === 'norm' ? [''] : ['norm1.', 'norm2.']) {
    for (const part of needed) {
      if (inputs[prefix + part] === undefined)
        fail('INPUT', `kernels.${name}: ${prefix}${part}: expected [${d}] for ${kind}, got nothing`);
    }
  }
}

/**
 * Each kernel as a function on tensors, unfused and fused, on the CPU: `kernels.fusion({ extra, intra, weight, bias })`.
 * float64 tensors are computed in double. `kernels.<name>.signature` says which tensors and options it takes.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT`, `_TYPE`, `_SHAPE`, `_RANGE`.
 */
export const kernels: Readonly<Record<KernelName, Kernel>> = Object.freeze(
  Object.fromEntries((Object.keys(table) as KernelName[]).map((name) => [name, makeKernel(name)])) as Record<
    KernelName,
    Kernel
  >,
);
