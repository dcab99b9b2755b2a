import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import type { NativeReal, NativeRequest, NativeSequenceOutputs } from '../native/addon';
import { describe, elementCount } from '../tensor/shape';
import { type Tensor, trustedTensor } from '../tensor/tensor';
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

/** Dims of one output or trace stage of a sequence or of the head. */
function dimsOf(config: HPformerConfig, feeds: PreparedFeeds, sequence: PreparedSequence, name: string): number[] {
  const { batch } = feeds;
  const { hidden, layers, heads } = config;
  const { steps } = sequence.feed;
  const s = sequence.segmentsMax;
  switch (name) {
    case 'logits':
    case 'probabilities':
      return headDims(config, feeds, config.head.labels);
    case 'pooled':
      return [batch, hidden];
    case 'keys':
    case 'segmentPool':
    case 'extraSegment':
    case 'intraSegment':
      return [batch, s, hidden];
    case 'segments':
      return [batch];
    case 'attention': {
      const oneStep = config.readout === 'step' && feeds.readoutWeights === undefined;
      return oneStep ? [batch, layers, heads, s] : [batch, steps, layers, heads, s];
    }
    case 'segmentAttention':
      return [batch, s, s];
    case 'intraAttention':
      return [batch, steps];
    default:
      return name.startsWith('head.')
        ? headDims(config, feeds, config.head.layers[Number(name.slice(5))]!.size)
        : [batch, steps, hidden];
  }
}

function headDims(config: HPformerConfig, feeds: PreparedFeeds, width: number): number[] {
  return config.readout === 'steps' ? [feeds.batch, feeds.first.feed.steps, width] : [feeds.batch, width];
}

/** A request with the arrays that native code fills, and how to hand them to the caller. */
export interface PreparedRun {
  request: NativeRequest;
  results(): Record<string, Tensor>;
}

/**
 * Allocates exactly the arrays asked for and puts a request together.
 * @throws HPformerError `ERR_HPFORMER_LIMIT` when they, the feeds and the scratch memory exceed `maxBytes`, `ERR_HPFORMER_MEMORY` when they cannot be had.
 */
export function prepareRun(
  config: HPformerConfig,
  feeds: PreparedFeeds,
  names: readonly string[],
  options: { double: boolean; trace: boolean; rewrites: number; maxBytes: number },
): PreparedRun {
  const { double, trace } = options;
  const shapes = names.map((name) =>
    name.startsWith('second.')
      ? dimsOf(config, feeds, feeds.second!, name.slice(7))
      : dimsOf(config, feeds, feeds.first, name),
  );
  let bytes = 0;
  const counts = shapes.map((dims, i) => {
    const count = elementCount(names[i]!, dims);
    bytes += count * (double && !isCount(names[i]!) ? 8 : 4);
    return count;
  });
  const inputs = inputBytes(feeds);
  const scratch = scratchBytes(config, feeds, double);
  if (bytes + inputs + scratch > options.maxBytes) {
    throw new HPformerError(
      'ERR_HPFORMER_LIMIT',
      `run: expected at most ${options.maxBytes} bytes (load option maxBytes), this one needs ${bytes + inputs + scratch}: ` +
        `feeds ${inputs}, scratch memory ${scratch}, outputs ${bytes}: ${names
          .map((name, i) => `${name} [${shapes[i]!.join(', ')}]`)
          .join(', ')}`,
    );
  }
  const arrays = new Array<NativeReal | Int32Array>(names.length);
  try {
    for (let i = 0; i < names.length; i++) {
      const count = counts[i]!;
      arrays[i] = isCount(names[i]!)
        ? new Int32Array(count)
        : double
          ? new Float64Array(count)
          : new Float32Array(count);
    }
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_MEMORY', `outputs: ${bytes} bytes could not be allocated`, { cause });
  }

  const request: NativeRequest = {
    rewrites: options.rewrites,
    batch: feeds.batch,
    feed: feeds.first.feed,
    out: { segmentsMax: feeds.first.segmentsMax },
    trace,
  };
  if (feeds.second) {
    request.second = feeds.second.feed;
    request.outSecond = { segmentsMax: feeds.second.segmentsMax };
  }
  if (feeds.step) request.step = feeds.step;
  if (feeds.readoutWeights) request.readoutWeights = feeds.readoutWeights;
  for (let i = 0; i < names.length; i++) place(request, names[i]!, arrays[i]!);

  return {
    request,
    results() {
      const results: Record<string, Tensor> = {};
      for (let i = 0; i < names.length; i++) {
        const type = isCount(names[i]!) ? 'int32' : double ? 'float64' : 'float32';
        results[names[i]!] = trustedTensor(type, arrays[i]!, shapes[i]!);
      }
      return results;
    },
  };
}

/** Bytes of the arrays that a submit copies. */
function inputBytes({ first, second, step, readoutWeights }: PreparedFeeds): number {
  const arrays: (ArrayBufferView | undefined)[] = [step, readoutWeights];
  for (const { feed } of second ? [first, second] : [first])
    arrays.push(feed.features, feed.tokens, feed.values, feed.lengths);
  return arrays.reduce((bytes, array) => bytes + (array?.byteLength ?? 0), 0);
}

/**
 * What one run needs besides feeds and outputs, as far as it grows with the request: the pooled rows of the batch, and of one
 * sequence its segment rows, segment scores and list of steps (on the reference device its embedded rows as well).
 */
function scratchBytes(config: HPformerConfig, { batch, first, second }: PreparedFeeds, double: boolean): number {
  const { hidden } = config;
  let values = 0;
  for (const { feed, segmentsMax: s } of second ? [first, second] : [first])
    values += batch * hidden + s * (s + 6 * hidden) + feed.steps * (double ? 1 + 3 * hidden : 1);
  return values * (double ? 8 : 4);
}

/** Puts an array where native code looks for it. */
function place(request: NativeRequest, name: string, array: NativeReal | Int32Array): void {
  const real = array as NativeReal;
  if (name === 'logits' || name === 'probabilities') {
    request[name] = real;
  } else if (name.startsWith('head.')) {
    (request.head ??= []).push(real);
  } else {
    const second = name.startsWith('second.');
    const out = second ? request.outSecond! : request.out;
    const own = second ? name.slice(7) : name;
    if (own === 'segments') out.segments = array as Int32Array;
    else if (own.startsWith('layer.')) (out.layers ??= []).push(real);
    else out[own as Exclude<keyof NativeSequenceOutputs, 'segmentsMax' | 'segments' | 'layers'>] = real;
  }
}

function isCount(name: string): boolean {
  return name === 'segments' || name === 'second.segments';
}
