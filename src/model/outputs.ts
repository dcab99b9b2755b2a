import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import type { NativeReal, NativeRequest, NativeSequenceOutputs } from '../native/addon';
import { describe, elementCount } from '../tensor/shape';
import { Tensor } from '../tensor/tensor';
import type { PreparedFeeds, PreparedSequence } from './feeds';

/** Names that `outputs` may hold for this configuration, in the order of the documentation. */
export function legalOutputs(config: HPformerConfig): string[] {
  const perSequence = [
    ...(config.readout === 'steps' ? [] : ['pooled']),
    ...['keys', 'segments', 'attention', 'segmentAttention', 'intraAttention'],
  ];
  return [
    'logits',
    ...(config.head.link === 'none' ? [] : ['probabilities']),
    ...perSequence,
    ...(config.sequences === 2 ? perSequence.map((name) => `second.${name}`) : []),
  ];
}

/** What `run` returns when nothing is asked for by name. */
export function defaultOutputs(config: HPformerConfig): string[] {
  return config.head.link === 'none' ? ['logits'] : ['logits', 'probabilities'];
}

/** Names that `trace` returns for this configuration. */
export function traceOutputs(config: HPformerConfig): string[] {
  const layers = Array.from({ length: config.layers }, (_, i) => `layer.${i}`);
  const perSequence = [
    ...['embedded', 'segmentPool', 'extraSegment', 'intraSegment', 'keys'],
    ...layers,
    'encoded',
    ...(config.readout === 'steps' ? [] : ['pooled']),
  ];
  return [
    ...perSequence,
    ...(config.sequences === 2 ? perSequence.map((name) => `second.${name}`) : []),
    ...config.head.layers.map((_, j) => `head.${j}`),
    ...defaultOutputs(config),
  ];
}

/**
 * Checks the names a caller asks for.
 * @throws HPformerError `ERR_HPFORMER_TYPE` when it is no array of strings, `ERR_HPFORMER_INPUT` for an unknown or inapplicable name.
 */
export function checkOutputs(config: HPformerConfig, outputs: readonly string[] | undefined): string[] {
  if (outputs === undefined) return defaultOutputs(config);
  if (!Array.isArray(outputs)) {
    throw new HPformerError('ERR_HPFORMER_TYPE', `outputs: expected an array of names, got ${describe(outputs)}`);
  }
  const legal = legalOutputs(config);
  if (outputs.length === 0) {
    throw new HPformerError('ERR_HPFORMER_INPUT', `outputs: expected at least one of ${legal.join(', ')}, got none`);
  }
  for (const name of outputs) {
    if (!legal.includes(name)) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `outputs: expected names among ${legal.join(', ')}, got ${describe(name)}`,
      );
    }
  }
  return [...new Set<string>(outputs)];
}

/** Dims of every output and trace stage of one sequence. */
function sequenceDims(
  config: HPformerConfig,
  feeds: PreparedFeeds,
  sequence: PreparedSequence,
): Record<string, number[]> {
  const { batch } = feeds;
  const { steps } = sequence.feed;
  const { hidden, layers, heads } = config;
  const s = sequence.segmentsMax;
  const oneStep = config.readout === 'step' && feeds.readoutWeights === undefined;
  const dims: Record<string, number[]> = {
    pooled: [batch, hidden],
    keys: [batch, s, hidden],
    segments: [batch],
    attention: oneStep ? [batch, layers, heads, s] : [batch, steps, layers, heads, s],
    segmentAttention: [batch, s, s],
    intraAttention: [batch, steps],
    embedded: [batch, steps, hidden],
    segmentPool: [batch, s, hidden],
    extraSegment: [batch, s, hidden],
    intraSegment: [batch, s, hidden],
    encoded: [batch, steps, hidden],
  };
  for (let i = 0; i < layers; i++) dims[`layer.${i}`] = [batch, steps, hidden];
  return dims;
}

/** Dims of every output of the head. */
function headDims(config: HPformerConfig, feeds: PreparedFeeds): Record<string, number[]> {
  const rows = config.readout === 'steps' ? [feeds.batch, feeds.first.feed.steps] : [feeds.batch];
  const dims: Record<string, number[]> = {
    logits: [...rows, config.head.labels],
    probabilities: [...rows, config.head.labels],
  };
  config.head.layers.forEach(({ size }, j) => {
    dims[`head.${j}`] = [...rows, size];
  });
  return dims;
}

/** A request with the arrays that native code fills, and how to hand them to the caller. */
export interface PreparedRun {
  request: NativeRequest;
  results(): Record<string, Tensor>;
}

/**
 * Allocates exactly the arrays asked for and puts a request together.
 * @throws HPformerError `ERR_HPFORMER_LIMIT` when they exceed `maxBytes`, `ERR_HPFORMER_MEMORY` when they cannot be had.
 */
export function prepareRun(
  config: HPformerConfig,
  feeds: PreparedFeeds,
  names: readonly string[],
  options: { double: boolean; trace: boolean; rewrites: number; maxBytes: number },
): PreparedRun {
  const shapes: Record<string, number[]> = { ...sequenceDims(config, feeds, feeds.first), ...headDims(config, feeds) };
  if (feeds.second) {
    for (const [name, dims] of Object.entries(sequenceDims(config, feeds, feeds.second)))
      shapes[`second.${name}`] = dims;
  }
  const size = options.double ? 8 : 4;
  const counts = names.map((name) => elementCount(name, shapes[name]!));
  const bytes = counts.reduce((sum, count, i) => sum + count * (isCount(names[i]!) ? 4 : size), 0);
  if (bytes > options.maxBytes) {
    throw new HPformerError(
      'ERR_HPFORMER_LIMIT',
      `outputs: expected at most ${options.maxBytes} bytes (load option maxBytes), these need ${bytes}: ${names
        .map((name) => `${name} [${shapes[name]!.join(', ')}]`)
        .join(', ')}`,
    );
  }
  const arrays: Record<string, NativeReal | Int32Array> = {};
  try {
    names.forEach((name, i) => {
      const count = counts[i]!;
      arrays[name] = isCount(name)
        ? new Int32Array(count)
        : options.double
          ? new Float64Array(count)
          : new Float32Array(count);
    });
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_MEMORY', `outputs: ${bytes} bytes could not be allocated`, { cause });
  }

  const real = (name: string) => arrays[name] as NativeReal | undefined;
  const sequenceOutputs = (prefix: string, sequence: PreparedSequence): NativeSequenceOutputs => {
    const out: NativeSequenceOutputs = { segmentsMax: sequence.segmentsMax };
    const realNames = [
      'pooled',
      'keys',
      'attention',
      'segmentAttention',
      'intraAttention',
      'embedded',
      'segmentPool',
    ] as const;
    for (const name of [...realNames, 'extraSegment', 'intraSegment', 'encoded'] as const) {
      const array = real(prefix + name);
      if (array) out[name] = array;
    }
    const counted = arrays[`${prefix}segments`] as Int32Array | undefined;
    if (counted) out.segments = counted;
    if (options.trace) out.layers = Array.from({ length: config.layers }, (_, i) => real(`${prefix}layer.${i}`)!);
    return out;
  };

  const request: NativeRequest = {
    rewrites: options.rewrites,
    batch: feeds.batch,
    feed: feeds.first.feed,
    out: sequenceOutputs('', feeds.first),
    trace: options.trace,
  };
  if (feeds.second) {
    request.second = feeds.second.feed;
    request.outSecond = sequenceOutputs('second.', feeds.second);
  }
  if (feeds.step) request.step = feeds.step;
  if (feeds.readoutWeights) request.readoutWeights = feeds.readoutWeights;
  if (arrays.logits) request.logits = arrays.logits as NativeReal;
  if (arrays.probabilities) request.probabilities = arrays.probabilities as NativeReal;
  if (options.trace && config.head.layers.length > 0)
    request.head = config.head.layers.map((_, j) => real(`head.${j}`)!);

  return {
    request,
    results() {
      const results: Record<string, Tensor> = {};
      for (const name of names) {
        const type = isCount(name) ? 'int32' : options.double ? 'float64' : 'float32';
        results[name] = new Tensor(type, arrays[name]!, shapes[name]!);
      }
      return results;
    },
  };
}

function isCount(name: string): boolean {
  return name === 'segments' || name === 'second.segments';
}
