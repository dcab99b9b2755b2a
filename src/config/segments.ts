import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import type { HPformerConfig } from './types';

/** The cut of one sequence. */
export interface Segments {
  /** Number of segments S. */
  count: number;
  /** Steps in one segment, b. */
  length: number;
  /** Zero rows appended after the last step: count · length − steps. */
  padding: number;
}

const cut = (steps: number, count: number, length: number): Segments => ({
  count,
  length,
  padding: count * length - steps,
});

/** n0 of the published rule for T steps: (⌊ln T⌋ + 1) · times. Below 2^53 no integer is close enough to a power of e for rounding to matter. */
function publishedCount(base: number, times: number): number {
  return (Math.floor(Math.log(base)) + 1) * times;
}

/** Lengths next to `steps` that the rule accepts, for error messages. */
function nearestLengths(config: HPformerConfig, steps: number): number[] {
  const { segments } = config;
  if (segments.steps !== null) {
    const n0 = publishedCount(segments.steps, segments.times);
    const below = steps - (steps % n0);
    return below === 0 ? [n0] : [below, below + n0];
  }
  // T is the length itself; n0 grows slower than it, so the search ends soon. Lengths below a refused one may be accepted too.
  const accepted = (length: number) => length >= publishedCount(length, segments.times);
  let above = steps + 1;
  while (!accepted(above)) above++;
  let below = steps - 1;
  while (below >= 1 && !accepted(below)) below--;
  return below >= 1 ? [below, above] : [above];
}

/**
 * Cuts a sequence into segments: reference section 1 and, for rule `paper` and over `valid`, design section 2. The same
 * arithmetic as binding/contract/segments.cc.
 *
 * @param steps the (padded) length L, or with over `valid` the sequence's own length.
 * @param where begins an error message.
 * @throws HPformerError `ERR_HPFORMER_SHAPE` where the rule has no answer; names the nearest lengths that have one.
 */
export function segmentsOf(config: HPformerConfig, steps: number, where = 'steps'): Segments {
  if (!Number.isSafeInteger(steps) || steps < 1) {
    throw new HPformerError('ERR_HPFORMER_SHAPE', `${where}: expected a length of at least 1, got ${describe(steps)}`);
  }
  const segments = tryCut(config, steps);
  if (typeof segments === 'object') return segments;
  const n0 = segments;
  const what = steps < n0 ? `a length of at least ${n0}, for ${n0} segments` : `a length that ${n0} segments divide`;
  const lengths = nearestLengths(config, steps).join(' or ');
  throw new HPformerError('ERR_HPFORMER_SHAPE', `${where}: expected ${what} (nearest: ${lengths}), got ${steps}`);
}

/** The cut, or the number of segments that this length does not take. */
function tryCut(config: HPformerConfig, steps: number): Segments | number {
  const { rule, times, over, steps: fixed } = config.segments;
  const base = fixed ?? steps;
  if (rule === 'paper') {
    const c = Math.max(1, Math.ceil(Math.log(base)));
    const b = Math.max(1, Math.floor(steps / c));
    return cut(steps, Math.max(c + 1, Math.ceil(steps / b)), b);
  }
  const n0 = publishedCount(base, times);
  if (steps < n0) return over === 'valid' && fixed !== null ? cut(steps, steps, 1) : n0;
  const b = Math.floor(steps / n0);
  if (steps % n0 === 0) return cut(steps, n0, b);
  return over === 'padded' && fixed !== null ? n0 : cut(steps, Math.floor(steps / b) + 1, b);
}

/** Whether {@link segmentsOf} has an answer for a length of at least 1, without the search for the nearest ones that have. */
export function isCuttable(config: HPformerConfig, steps: number): boolean {
  return typeof tryCut(config, steps) === 'object';
}

/**
 * As {@link segmentsOf}, of a sequence that a model is to read: learned positions end somewhere.
 * @throws HPformerError `ERR_HPFORMER_SHAPE` also beyond them.
 */
export function segmentsToRead(config: HPformerConfig, steps: number, where = 'steps'): Segments {
  const { positions } = config;
  if (positions.kind === 'learned' && steps > positions.maximum) {
    const expected = `at most ${positions.maximum} steps (learned positions)`;
    throw new HPformerError('ERR_HPFORMER_SHAPE', `${where}: expected ${expected}, got ${steps}`);
  }
  return segmentsOf(config, steps, where);
}
