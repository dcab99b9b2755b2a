import { segmentsToRead } from '../config/segments';
import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import type { NativeFeed, NativeReal } from '../native/addon';
import { type CheckedTensor, readTensor, toInt32, toReal } from '../tensor/convert';
import { describe, elementCount } from '../tensor/shape';
import type { Feeds } from './types';

/** Sizes and indices travel as int32 inside a run. */
const int32Max = 2147483647;

/** One validated input sequence: what native code reads, and the largest number of segments in the batch. */
export interface PreparedSequence {
  feed: NativeFeed;
  segmentsMax: number;
}

/** Feeds that were proved to fit the model. */
export interface PreparedFeeds {
  batch: number;
  first: PreparedSequence;
  second?: PreparedSequence;
  step?: Int32Array;
  readoutWeights?: NativeReal;
}

/** The feed that carries the sequence itself. */
export function mainFeed(config: HPformerConfig): 'features' | 'tokens' | 'values' {
  const { kind } = config.embedding;
  return kind === 'scalar' ? 'values' : kind;
}

/** The feed that carries the second sequence; two-sequence models have tokens or scalars. */
export function secondFeed(config: HPformerConfig): 'tokens2' | 'values2' {
  return config.embedding.kind === 'tokens' ? 'tokens2' : 'values2';
}

/** Every feed that this configuration takes, in the order of the documentation. */
export function legalFeeds(config: HPformerConfig): (keyof Feeds)[] {
  const names: (keyof Feeds)[] = [mainFeed(config)];
  if (config.sequences === 2) names.push(secondFeed(config));
  names.push('lengths');
  if (config.sequences === 2) names.push('lengths2');
  if (config.readout === 'step') names.push('step', 'readoutWeights');
  return names;
}

/** `[batch, steps, 76]` or `[batch, steps]`: the dims of the main feed, for messages. */
function expectedDims(config: HPformerConfig): string {
  return config.embedding.kind === 'features' ? `[batch, steps, ${config.embedding.size}]` : '[batch, steps]';
}

/**
 * Proves feeds against a configuration and turns them into what native code reads. float32 (float64 on the reference
 * device) and int32 data pass through without a copy; everything else is converted.
 *
 * @param double - the device computes in float64.
 * @param maxBytes - nothing is converted for a sequence that alone takes more.
 * @throws HPformerError `ERR_HPFORMER_INPUT` (missing, unknown or contradictory feeds), `_TYPE`, `_SHAPE`, `_RANGE`, `_LIMIT`.
 */
export function prepareFeeds(
  config: HPformerConfig,
  feeds: Feeds,
  double: boolean,
  maxBytes = Number.POSITIVE_INFINITY,
): PreparedFeeds {
  if (typeof feeds !== 'object' || feeds === null || ArrayBuffer.isView(feeds)) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `feeds: expected an object of tensors by name, got ${describe(feeds)}`,
    );
  }
  const main = mainFeed(config);
  checkNames(config, feeds, main);

  const two = config.sequences === 2;
  const [batch, first] = prepareSequence(config, main, feeds[main], 'lengths', feeds.lengths, double, maxBytes);
  const result: PreparedFeeds = { batch, first };
  if (two) {
    const name = secondFeed(config);
    const [batch2, second] = prepareSequence(config, name, feeds[name], 'lengths2', feeds.lengths2, double, maxBytes);
    if (batch2 !== batch) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${name}: expected a batch of ${batch} as in ${main}, got ${batch2}`,
      );
    }
    result.second = second;
  }
  if (feeds.readoutWeights !== undefined) {
    result.readoutWeights = prepareReadoutWeights(feeds.readoutWeights, batch, first.feed, double);
  } else if (feeds.step !== undefined) {
    result.step = prepareStep(config, feeds.step, batch, first.feed);
  }
  return result;
}

/** Legal names by configuration: asked at every run. */
const legalNames = new WeakMap<HPformerConfig, (keyof Feeds)[]>();

function checkNames(config: HPformerConfig, feeds: Feeds, main: keyof Feeds): void {
  let legal = legalNames.get(config);
  if (legal === undefined) legalNames.set(config, (legal = legalFeeds(config)));
  for (const name of Object.keys(feeds) as (keyof Feeds)[]) {
    if (feeds[name] === undefined || legal.includes(name)) continue;
    const why =
      name === 'step' || name === 'readoutWeights'
        ? `; it belongs to readout "step", this model has readout "${config.readout}"`
        : '';
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `feeds: this model takes ${legal.join(', ')}, got ${describe(name)}${why}`,
    );
  }
  if (feeds.step !== undefined && feeds.readoutWeights !== undefined) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      'feeds: step and readoutWeights contradict each other; expected one of them, got both',
    );
  }
  const missing = feeds[main] === undefined ? main : config.sequences === 2 ? secondFeed(config) : undefined;
  if (missing !== undefined) {
    if (feeds[missing] === undefined) {
      throw new HPformerError('ERR_HPFORMER_INPUT', `${missing}: expected ${expectedDims(config)}, got nothing`);
    }
  }
}

function prepareSequence(
  config: HPformerConfig,
  name: string,
  value: unknown,
  lengthsName: string,
  lengthsValue: unknown,
  double: boolean,
  maxBytes: number,
): [batch: number, sequence: PreparedSequence] {
  const { embedding } = config;
  const width = embedding.kind === 'features' ? embedding.size : 1;
  const tensor = readTensor(name, value, (length, array) => {
    if (length % width !== 0) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${name}: expected a multiple of ${width} elements in a bare ${array}, got ${length}`,
      );
    }
    return embedding.kind === 'features' ? [1, length / width, width] : [1, length];
  });
  const { dims } = tensor;
  if (dims.length !== (embedding.kind === 'features' ? 3 : 2) || (embedding.kind === 'features' && dims[2] !== width)) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `${name}: expected ${expectedDims(config)}, got [${dims.join(', ')}]`,
    );
  }
  const [batch, steps] = dims as [number, number];
  if (batch < 1 || steps < 1 || batch > int32Max || steps > int32Max) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `${name}: expected ${expectedDims(config)} with batch and steps from 1 to ${int32Max}, got [${dims.join(', ')}]`,
    );
  }
  elementCount(name, [batch, steps, config.hidden]);
  const bytes = batch * steps * width * (double && embedding.kind !== 'tokens' ? 8 : 4);
  if (bytes > maxBytes) {
    throw new HPformerError(
      'ERR_HPFORMER_LIMIT',
      `run: expected at most ${maxBytes} bytes (load option maxBytes), ${name} [${dims.join(', ')}] alone needs ${bytes}`,
    );
  }

  const feed: NativeFeed = { steps };
  const valid = config.segments.over === 'valid';
  if (lengthsValue !== undefined) feed.lengths = prepareLengths(config, lengthsName, lengthsValue, batch, steps);
  if (embedding.kind === 'tokens') {
    const { lengths } = feed;
    const within = (element: number) => element % steps < lengths![Math.floor(element / steps)]!;
    feed.tokens = prepareTokens(name, tensor, valid && lengths ? within : undefined);
    if (valid) feed.lengths ??= ownLengths(name, lengthsName, feed.tokens, batch, steps, embedding.padding);
  } else {
    feed[embedding.kind === 'features' ? 'features' : 'values'] = toReal(name, tensor, double);
    if (valid) feed.lengths ??= new Int32Array(batch).fill(steps);
  }
  return [batch, { feed, segmentsMax: countSegments(config, name, steps, feed.lengths) }];
}

/** A per-sequence integer feed `[batch]`, always in memory of its own: it becomes an index. */
function readIntegers(name: string, value: unknown, batch: number): Int32Array {
  const tensor = readTensor(
    name,
    value,
    bareBatch(name, batch, '[batch]', () => [1]),
  );
  if (tensor.dims.length !== 1 || tensor.dims[0] !== batch) {
    throw new HPformerError('ERR_HPFORMER_SHAPE', `${name}: expected [${batch}], got [${tensor.dims.join(', ')}]`);
  }
  const integers = toInt32(name, tensor);
  return isShared(integers) ? Int32Array.from(integers) : integers;
}

/** Dims of a bare array that accompanies the main feed: legal for a batch of one only. */
function bareBatch(name: string, batch: number, expected: string, dims: (length: number) => number[]) {
  return (length: number, array: string): number[] => {
    if (batch !== 1) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${name}: expected a tensor of dims ${expected} for a batch of ${batch}, got a bare ${array}`,
      );
    }
    const result = dims(length);
    if (result.reduce((a, b) => a * b, 1) !== length) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${name}: expected ${expected} for a batch of 1, got a bare ${array} of ${length} elements`,
      );
    }
    return result;
  };
}

function prepareLengths(
  config: HPformerConfig,
  name: string,
  value: unknown,
  batch: number,
  steps: number,
): Int32Array {
  const lengths = readIntegers(name, value, batch);
  const maximum = config.segments.over === 'valid' ? steps : int32Max;
  for (let i = 0; i < batch; i++) {
    if (lengths[i]! < 1 || lengths[i]! > maximum) {
      const range = maximum === steps ? `1 to ${steps}` : 'at least 1';
      throw new HPformerError('ERR_HPFORMER_RANGE', `${name}: expected ${range}, got ${lengths[i]} for sequence ${i}`);
    }
  }
  return lengths;
}

/** Ids as int32; native code checks them against the vocabulary, away from the event loop. */
function prepareTokens(name: string, tensor: CheckedTensor, matters?: (element: number) => boolean): Int32Array {
  const ids = toInt32(name, tensor, matters);
  // Ids become addresses: another thread must not change them after they were checked.
  return isShared(ids) ? Int32Array.from(ids) : ids;
}

/** Default lengths over 'valid': up to the last token that is not padding. */
function ownLengths(
  name: string,
  lengthsName: string,
  ids: Int32Array,
  batch: number,
  steps: number,
  padding: number | null,
): Int32Array {
  const lengths = new Int32Array(batch).fill(steps);
  if (padding === null) return lengths;
  for (let b = 0; b < batch; b++) {
    let length = steps;
    while (length > 0 && ids[b * steps + length - 1] === padding) length--;
    if (length === 0) {
      throw new HPformerError(
        'ERR_HPFORMER_RANGE',
        `${lengthsName}: sequence ${b} of ${name} holds padding only, so its default length is 0; expected at least 1`,
      );
    }
    lengths[b] = length;
  }
  return lengths;
}

/** The largest number of segments in the batch; fails where the rule has no answer for a length. */
function countSegments(config: HPformerConfig, name: string, steps: number, lengths: Int32Array | undefined): number {
  if (config.segments.over === 'padded') return segmentsToRead(config, steps, name).count;
  let most = 0;
  const seen = new Set<number>();
  for (const [b, length] of lengths!.entries()) {
    if (seen.has(length)) continue;
    seen.add(length);
    most = Math.max(most, segmentsToRead(config, length, `${name}: sequence ${b}`).count);
  }
  return most;
}

function prepareStep(config: HPformerConfig, value: unknown, batch: number, feed: NativeFeed): Int32Array {
  const step = readIntegers('step', value, batch);
  for (let b = 0; b < batch; b++) {
    const end = config.segments.over === 'valid' ? feed.lengths![b]! : feed.steps;
    if (step[b]! < 0 || step[b]! >= end) {
      throw new HPformerError('ERR_HPFORMER_RANGE', `step: expected 0 to ${end - 1} for sequence ${b}, got ${step[b]}`);
    }
  }
  return step;
}

function prepareReadoutWeights(value: unknown, batch: number, feed: NativeFeed, double: boolean): NativeReal {
  const { steps } = feed;
  const expected = `[${batch}, ${steps}]`;
  const tensor = readTensor(
    'readoutWeights',
    value,
    bareBatch('readoutWeights', batch, expected, () => [1, steps]),
  );
  if (tensor.dims.length !== 2 || tensor.dims[0] !== batch || tensor.dims[1] !== steps) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `readoutWeights: expected ${expected}, got [${tensor.dims.join(', ')}]`,
    );
  }
  return toReal('readoutWeights', tensor, double, true);
}

function isShared(array: Int32Array): boolean {
  return (array.buffer as { [Symbol.toStringTag]: string })[Symbol.toStringTag] === 'SharedArrayBuffer';
}
