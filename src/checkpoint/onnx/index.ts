/** Writes HPformer models as ONNX files, without any dependency. */
import type { HPformerConfig } from '../../config/types';
import { HPformerError } from '../../errors';
import { type AttentionForm, compressedKeys, embed, layers, type SequenceInput } from './encoder';
import { OnnxGraph, type Size, type Value } from './graph';
import { type OnnxWeights, Parts } from './parts';

export type { OnnxWeights } from './parts';

/**
 * How the graph states the layers. All give the same results up to rounding (the `8` ones up to 8-bit weights).
 * - `written`: as the formulas stand, one operator each; runs everywhere.
 * - `bdiag`: keys spread block-diagonally over the heads, so that the heads share one product; one-step readouts are
 *   sliced before the layers.
 * - `fold`: `bdiag` with the output projection multiplied into the keys, fewer operations when many steps are read.
 * - `bdiag8`, `fold8`: the same with 8-bit weight products (needs onnxruntime's DynamicQuantizeMatMul).
 */
export type OnnxVariant = (typeof onnxVariants)[number];

/** Every {@link OnnxVariant}. */
export const onnxVariants = ['written', 'bdiag', 'fold', 'bdiag8', 'fold8'] as const;

export interface OnnxOptions {
  /** Steps L of the input; a number fixes it, `'dynamic'` leaves it open up to `maximumSteps`. */
  steps: number | 'dynamic';
  /** Largest L of a dynamic graph: the size of its position table. Default 4096, or the learned table's size. */
  maximumSteps?: number;
  /** Sequences B; default `'dynamic'`. */
  batch?: number | 'dynamic';
  /** Default `bdiag` for readout `step`, `fold` otherwise. */
  variant?: OnnxVariant;
  /** Steps of the second sequence where `steps` is a number. Default: the same. */
  steps2?: number;
  /**
   * Readout `step`: an input `step` [B] int64 (default), the last step always, or an input `readoutWeights` [B, L]
   * (a weighted sum over steps, which keeps all of them in the layers).
   */
  step?: 'input' | 'last' | 'weights';
  /** Readout `mean`: an input `lengths` [B] int64 as divisor, or the number of non-padding steps. Default `'count'`. */
  lengths?: 'input' | 'count';
  /** Tokens: false promises that no token is padding, and the graph loses its padding arithmetic. Default true. */
  padding?: boolean;
  /** Type of token input. Default `int64`. */
  tokenType?: 'int64' | 'int32';
  /** Allow onnxruntime's FusedMatMul. Default false: standard operators only (opset 17). */
  contrib?: boolean;
  /** Results besides `logits` and `probabilities`: `keys` [B, S, hidden], `pooled` [B, hidden] (readouts step, mean). */
  outputs?: ('keys' | 'pooled')[];
}

/**
 * The model as an ONNX file (opset 17). Inputs carry the package's feed names: `features` [B, L, F], `tokens` [B, L] or
 * `values` [B, L] (`tokens2` / `values2` for a second sequence), and `step` / `lengths` where the options ask for them;
 * outputs are `logits` and, unless the link is `none`, `probabilities`.
 *
 * With `segments.over: 'valid'` the graph takes sequences of full length only: {@link onnxNotes} says so.
 * @throws HPformerError `ERR_HPFORMER_CONFIG` for options that do not fit the config, `ERR_HPFORMER_CHECKPOINT` for weights that do not,
 * `ERR_HPFORMER_LIMIT` for steps whose positions no ONNX file can hold.
 */
export function exportOnnx(config: HPformerConfig, weights: OnnxWeights, options: OnnxOptions): Uint8Array {
  const variant = options.variant ?? (config.readout === 'step' ? 'bdiag' : 'fold');
  const written = variant === 'written';
  const form: AttentionForm = written ? 'heads' : variant.startsWith('fold') ? 'fold' : 'bdiag';
  const g = new OnnxGraph();
  const parts = new Parts(g, config, weights, variant.endsWith('8'), !written, options.contrib ?? false);
  const batch = options.batch === undefined || options.batch === 'dynamic' ? 'batch' : options.batch;
  const first = sequence(parts, options, batch, '');
  const pooled: Value[] = [];
  let rows: Value = '';
  for (const input of config.sequences === 2 ? [first, sequence(parts, options, batch, '2')] : [first]) {
    const suffix = input === first ? '' : '2';
    const { steps } = input;
    let x = embed(parts, input);
    const { keys, segments } = compressedKeys(parts, x, steps);
    if (options.outputs?.includes('keys')) {
      g.output(`keys${suffix}`, keys, [
        batch,
        typeof segments === 'number' ? segments : `segments${suffix}`,
        config.hidden,
      ]);
    }
    const sliced = config.readout === 'step' && !written && options.step !== 'weights';
    // What is read at a padding token stays zero, as in the model.
    let real = input.present;
    if (sliced) {
      const atStep = oneStep(parts, steps, options, batch);
      x = atStep(x);
      real = real && atStep(real);
    }
    x = layers(parts, x, sliced ? 1 : steps, keys, segments, form);
    if (real) x = g.op('Mul', [x, real]);
    if (config.readout === 'steps') rows = x;
    else if (config.readout === 'mean') pooled.push(meanOverLength(parts, x, input, options, batch, suffix));
    else pooled.push(sliced ? g.reshape(x, -1, config.hidden) : weightedStep(parts, x, steps, options, batch));
    if (options.outputs?.includes('pooled') && config.readout !== 'steps') {
      g.output(`pooled${suffix}`, pooled.at(-1)!, [batch, config.hidden]);
    }
  }
  if (pooled.length === 2) rows = g.op('Concat', [pooled[1]!, pooled[0]!], { axis: -1 });
  else if (pooled.length === 1) rows = pooled[0]!;
  const labels = config.head.labels;
  const dims =
    config.readout === 'steps'
      ? [batch, typeof first.steps === 'number' ? first.steps : 'steps', labels]
      : [batch, labels];
  const logits = head(parts, rows, first.steps);
  g.output('logits', logits, dims);
  if (config.head.link !== 'none') {
    const link = config.head.link === 'sigmoid' ? g.op('Sigmoid', [logits]) : parts.softmax(logits);
    g.output('probabilities', link, dims);
  }
  return g.finish('hpformer', { 'hpformer.config': JSON.stringify(config), 'hpformer.variant': variant });
}

/**
 * What whoever runs the graph must know, since the graph computes something else than the model otherwise; empty for most models.
 * A graph has no lengths to cut segments at, it takes every step that it is given as the sequence's own.
 */
export function onnxNotes(config: HPformerConfig, { steps, steps2 }: OnnxOptions): string[] {
  if (config.segments.over !== 'valid') return [];
  const sizes = steps2 === undefined ? `${steps}` : `${steps} and ${steps2}`;
  const long =
    steps === 'dynamic'
      ? 'all sequences of a batch equally long (ragged ones one by one)'
      : `exactly ${sizes} steps (a graph with dynamic steps takes other lengths)`;
  return [`segments.over is 'valid': the graph expects sequences without padding, ${long}`];
}

/** Declares one input sequence. */
function sequence(parts: Parts, options: OnnxOptions, batch: number | string, suffix: '' | '2'): SequenceInput {
  const { graph: g, config } = parts;
  const { embedding, positions } = config;
  const dynamic = options.steps === 'dynamic';
  const learned = positions.kind === 'learned' ? positions.maximum : null;
  const maximum =
    options.steps === 'dynamic'
      ? (options.maximumSteps ?? learned ?? 4096)
      : suffix
        ? (options.steps2 ?? options.steps)
        : options.steps;
  if (!Number.isInteger(maximum) || maximum < 1) {
    throw new HPformerError('ERR_HPFORMER_CONFIG', `steps: expected a positive integer or 'dynamic', got ${maximum}`);
  }
  // The position table alone; a protocol buffer ends at 2 GiB.
  if (maximum * config.hidden * 4 >= 2 ** 31) {
    const most = Math.floor(2 ** 29 / config.hidden);
    throw new HPformerError(
      'ERR_HPFORMER_LIMIT',
      `steps: expected fewer than ${most} (an ONNX file has at most 2 GiB), got ${maximum} with hidden size ${config.hidden}`,
    );
  }
  if (learned !== null && maximum > learned) {
    throw new HPformerError(
      'ERR_HPFORMER_CONFIG',
      `steps: expected at most ${learned} (learned positions), got ${maximum}`,
    );
  }
  const size = dynamic ? `steps${suffix}` : maximum;
  const name = `${embedding.kind === 'scalar' ? 'values' : embedding.kind}${suffix}`;
  let value: Value;
  if (embedding.kind === 'features') value = g.input(name, 'float32', [batch, size, embedding.size]);
  else value = g.input(name, embedding.kind === 'tokens' ? (options.tokenType ?? 'int64') : 'float32', [batch, size]);
  const input: SequenceInput = {
    value,
    steps: dynamic ? g.sizeOf(value, 1) : maximum,
    maximum,
    present: null,
    padded: null,
  };
  if (embedding.kind === 'tokens' && embedding.padding !== null && options.padding !== false) {
    const ids = options.tokenType === 'int32' ? g.op('Cast', [value], { to: { type: 'int64' } }) : value;
    input.padded = g.op('Equal', [ids, g.int(embedding.padding)]);
    const real = g.op('Cast', [g.op('Not', [input.padded])], { to: { type: 'float32' } });
    input.present = g.op('Unsqueeze', [real, g.int(2)]);
  }
  return input;
}

/** Row `step` of each sequence before the layers: [B, 1, hidden]. */
function oneStep(parts: Parts, steps: Size, options: OnnxOptions, batch: number | string): (x: Value) => Value {
  const g = parts.graph;
  if (options.step === 'last') {
    const last = g.shape([g.sizes('Sub', steps, 1)]);
    return (x) => g.op('Gather', [x, last], { axis: 1 });
  }
  const step = g.op('Unsqueeze', [g.input('step', 'int64', [batch]), g.int(1)]);
  return (x) => g.op('Unsqueeze', [g.op('GatherND', [x, step], { batch_dims: 1 }), g.int(1)]);
}

/** As the authors write it: a one-hot weight per step, summed after all layers. */
function weightedStep(parts: Parts, x: Value, steps: Size, options: OnnxOptions, batch: number | string): Value {
  const g = parts.graph;
  if (options.step === 'weights') {
    const name = g.input('readoutWeights', 'float32', [batch, typeof steps === 'number' ? steps : 'steps']);
    return g.op('ReduceSum', [g.op('Mul', [x, g.op('Unsqueeze', [name, g.int(2)])]), g.int(1)], { keepdims: 0 });
  }
  let hot: Value;
  const onOff = g.constant('onOff', new Float32Array([0, 1]), [2]);
  const depth = g.op('Squeeze', [g.shape([steps]), g.int(0)]);
  if (options.step === 'last') {
    hot = g.op('OneHot', [g.shape([g.sizes('Sub', steps, 1)]), depth, onOff], { axis: -1 });
  } else {
    hot = g.op('OneHot', [g.input('step', 'int64', [batch]), depth, onOff], { axis: -1 });
  }
  return g.op('ReduceSum', [g.op('Mul', [x, g.op('Unsqueeze', [hot, g.int(2)])]), g.int(1)], { keepdims: 0 });
}

/** Sum over steps (padding rows are zero) divided by the length. */
function meanOverLength(
  parts: Parts,
  x: Value,
  input: SequenceInput,
  options: OnnxOptions,
  batch: number | string,
  suffix: string,
): Value {
  const g = parts.graph;
  const asked = options.lengths === 'input';
  if (!asked && !input.present) return g.op('ReduceMean', [x], { axes: [1], keepdims: 0 });
  const sum = g.op('ReduceSum', [x, g.int(1)], { keepdims: 0 });
  let divisor: Value;
  if (asked) {
    const given = g.op('Cast', [g.input(`lengths${suffix}`, 'int64', [batch])], { to: { type: 'float32' } });
    divisor = g.op('Unsqueeze', [given, g.int(1)]);
  } else {
    divisor = g.op('ReduceSum', [input.present!, g.int(1)], { keepdims: 0 });
  }
  return g.op('Div', [sum, divisor]);
}

/** Head layers and logits on [B, width] or, for readout `steps`, on [B, L, hidden]. */
function head(parts: Parts, rows: Value, steps: Size): Value {
  const { graph: g, config } = parts;
  let width = config.hidden * config.sequences;
  const flatten = config.readout === 'steps' && parts.flat;
  let x = flatten ? g.reshape(rows, -1, width) : rows;
  config.head.layers.forEach(({ size, activation }, j) => {
    x = parts.linear(x, `head.layers.${j}.weight`, `head.layers.${j}.bias`, size, width, false);
    x = parts.activate(x, activation);
    width = size;
  });
  const { labels, bias } = config.head;
  x = parts.linear(x, 'head.output.weight', bias ? 'head.output.bias' : null, labels, width, false);
  return flatten ? g.reshape(x, -1, steps, labels) : x;
}
