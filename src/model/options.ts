import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import {
  type DeviceRequest,
  type ModelOptions,
  type Precision,
  type RewriteName,
  rewriteNames,
  type Shape,
} from './types';

/** Load options, checked and completed. */
export interface ResolvedOptions {
  device: DeviceRequest;
  precision: Precision;
  /** 0: the native default. */
  threads: number;
  signal: AbortSignal | undefined;
  rejectNonFinite: boolean;
  /** Bit i: rewriteNames[i] may be used. */
  rewrites: number;
  maxBytes: number;
}

/** Names of devices, each in one form only. */
export const deviceNames = /^(auto|cpu|reference|cuda(:(all|0|[1-9]\d{0,3}))?)$/;

/** Of one run, and of the results of one kernel. */
export const defaultMaxBytes = 2 * 2 ** 30;

/**
 * Checks the options of load and create.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `_RANGE`, `_INPUT`, or `_DEVICE` for a device or precision that does not exist.
 */
export function resolveOptions(options: ModelOptions | undefined): ResolvedOptions {
  if (options !== undefined && (typeof options !== 'object' || options === null)) {
    throw new HPformerError('ERR_HPFORMER_TYPE', `options: expected an object, got ${describe(options)}`);
  }
  const {
    device = 'auto',
    precision = 'float32',
    threads,
    signal,
    nonFinite = 'propagate',
    rewrites,
    maxBytes,
  } = options ?? {};
  if (typeof device !== 'string' || !deviceNames.test(device)) {
    throw new HPformerError(
      'ERR_HPFORMER_DEVICE',
      `device: expected auto, cpu, reference, cuda, cuda:<number> or cuda:all, got ${describe(device)}`,
    );
  }
  if (precision !== 'float32' && precision !== 'bfloat16') {
    throw new HPformerError(
      'ERR_HPFORMER_DEVICE',
      `precision: expected float32 or bfloat16, got ${describe(precision)}`,
    );
  }
  if (threads !== undefined) checkInteger('threads', threads, 1, 1024);
  if (nonFinite !== 'propagate' && nonFinite !== 'error') {
    throw new HPformerError('ERR_HPFORMER_INPUT', `nonFinite: expected propagate or error, got ${describe(nonFinite)}`);
  }
  if (maxBytes !== undefined) checkInteger('maxBytes', maxBytes, 1, Number.MAX_SAFE_INTEGER);
  checkSignal(signal);
  return {
    device: device as DeviceRequest,
    precision,
    threads: threads ?? 0,
    signal,
    rejectNonFinite: nonFinite === 'error',
    rewrites: rewriteBits(rewrites),
    maxBytes: maxBytes ?? defaultMaxBytes,
  };
}

/** The bits of binding/contract/plan.h: all on, but for what was switched off. */
function rewriteBits(rewrites: ModelOptions['rewrites']): number {
  let bits = (1 << rewriteNames.length) - 1;
  if (rewrites === undefined) return bits;
  if (typeof rewrites !== 'object' || rewrites === null) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `rewrites: expected an object of booleans by name, got ${describe(rewrites)}`,
    );
  }
  for (const [name, on] of Object.entries(rewrites)) {
    const bit = rewriteNames.indexOf(name as RewriteName);
    if (bit < 0) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `rewrites: expected names among ${rewriteNames.join(', ')}, got ${describe(name)}`,
      );
    }
    if (on !== undefined && typeof on !== 'boolean') {
      throw new HPformerError('ERR_HPFORMER_TYPE', `rewrites.${name}: expected true or false, got ${describe(on)}`);
    }
    if (on === false) bits &= ~(1 << bit);
  }
  return bits;
}

/** @throws HPformerError `ERR_HPFORMER_TYPE` when it is no number, `ERR_HPFORMER_RANGE` when it is no integer in the range. */
export function checkInteger(where: string, value: unknown, minimum: number, maximum: number): asserts value is number {
  if (typeof value !== 'number') {
    throw new HPformerError('ERR_HPFORMER_TYPE', `${where}: expected an integer, got ${describe(value)}`);
  }
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `${where}: expected an integer from ${minimum} to ${maximum}, got ${value}`,
    );
  }
}

/** Sizes travel as int32. */
const int32Max = 2147483647;

/**
 * A shape to plan or warm up for, completed.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE`.
 */
export function checkShape(where: string, shape: Shape): { batch: number; steps: number; steps2: number } {
  if (typeof shape !== 'object' || shape === null) {
    throw new HPformerError('ERR_HPFORMER_TYPE', `${where}: expected { batch, steps }, got ${describe(shape)}`);
  }
  const { batch, steps, steps2 = steps } = shape;
  checkInteger('batch', batch, 1, int32Max);
  checkInteger('steps', steps, 1, int32Max);
  checkInteger('steps2', steps2, 1, int32Max);
  return { batch, steps, steps2 };
}

/** @throws HPformerError `ERR_HPFORMER_TYPE` when it is neither undefined nor an AbortSignal (of any realm). */
export function checkSignal(signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal === undefined) return;
  const like = signal as Partial<AbortSignal> | null;
  if (
    typeof like !== 'object' ||
    like === null ||
    typeof like.aborted !== 'boolean' ||
    typeof like.addEventListener !== 'function' ||
    typeof like.removeEventListener !== 'function'
  ) {
    throw new HPformerError('ERR_HPFORMER_TYPE', `signal: expected an AbortSignal, got ${describe(signal)}`);
  }
}
