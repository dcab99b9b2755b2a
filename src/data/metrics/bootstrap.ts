import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkFields, checkType, isList, wrongType } from '../check';
import { SeededRandom } from './random';

/** A percentile interval of a statistic over bootstrap samples. */
export interface Interval {
  low: number;
  high: number;
  /** Samples in which the statistic was defined; the others (a class missing) are left out. */
  samples: number;
}

/** Options of bootstrap intervals. */
export interface BootstrapOptions {
  /** Number of samples; default 1000. */
  samples?: number | undefined;
  /** Coverage; default 0.95. */
  level?: number | undefined;
  /** Seed of the generator; default 1. The same seed gives the same intervals everywhere. */
  seed?: number | undefined;
}

/** Row numbers are held in 32 bits. */
const maxRows = 2 ** 32 - 1;

/** Quantile by linear interpolation between order statistics (numpy's default); `sorted` ascending, not empty. */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const position = (sorted.length - 1) * q;
  const below = Math.floor(position);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (high - low) * (position - below);
}

/**
 * Percentile bootstrap over groups of rows: every sample draws as many groups as there are, with replacement, and a row counts as
 * often as its group was drawn. Rows of one matched set (or one patient) belong together, so they share a group.
 *
 * @param groups the group key of each row; a number instead: that many rows, each its own group.
 * @param statistic metrics of the rows counted `weights[row]` times; NaN where undefined.
 * @throws HPformerError `ERR_HPFORMER_RANGE` for options out of range, `ERR_HPFORMER_INPUT` for no rows.
 */
export function bootstrapIntervals<K extends string>(
  groups: ArrayLike<string | number> | number,
  statistic: (weights: Uint32Array) => Record<K, number>,
  options: BootstrapOptions = {},
): Record<K, Interval> {
  if (typeof groups !== 'number' && !isList(groups)) {
    throw wrongType('bootstrap: groups', 'a group for each row, or a number of rows', groups);
  }
  checkType('bootstrap: statistic', statistic, 'function');
  checkFields('bootstrap: options', options, {});
  const { samples = 1000, level = 0.95, seed = 1 } = options;
  if (!Number.isInteger(samples) || samples < 1) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `bootstrap: samples: expected an integer of at least 1, got ${describe(samples)}`,
    );
  }
  if (!(typeof level === 'number' && level > 0 && level < 1)) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `bootstrap: level: expected a number between 0 and 1, got ${describe(level)}`,
    );
  }
  if (!Number.isSafeInteger(seed)) {
    throw new HPformerError('ERR_HPFORMER_RANGE', `bootstrap: seed: expected an integer, got ${describe(seed)}`);
  }
  const rows = typeof groups === 'number' ? groups : groups.length;
  if (!(rows > 0)) throw new HPformerError('ERR_HPFORMER_INPUT', 'bootstrap: expected at least one row, got none');
  if (!Number.isSafeInteger(rows) || rows > maxRows) {
    throw new HPformerError('ERR_HPFORMER_RANGE', `bootstrap: expected a whole number of rows, got ${describe(rows)}`);
  }
  const groupOf = new Uint32Array(rows);
  const numbers = new Map<string | number, number>();
  for (let i = 0; i < rows; i++) {
    const key = typeof groups === 'number' ? i : groups[i]!;
    let number = numbers.get(key);
    if (number === undefined) numbers.set(key, (number = numbers.size));
    groupOf[i] = number;
  }
  const random = new SeededRandom(seed);
  const drawn = new Uint32Array(numbers.size);
  const weights = new Uint32Array(rows);
  const values = new Map<K, number[]>();
  for (let s = 0; s < samples; s++) {
    drawn.fill(0);
    for (let g = 0; g < drawn.length; g++) drawn[random.below(drawn.length)]!++;
    for (let i = 0; i < rows; i++) weights[i] = drawn[groupOf[i]!]!;
    const found = statistic(weights);
    if (typeof found !== 'object' || found === null) {
      throw wrongType('bootstrap: statistic', 'an object of numbers by name as its result', found);
    }
    for (const [name, value] of Object.entries(found) as [K, number][]) {
      if (typeof value !== 'number') throw wrongType(`bootstrap: statistic: ${name}`, 'a number', value);
      let list = values.get(name);
      if (!list) values.set(name, (list = []));
      if (!Number.isNaN(value)) list.push(value);
    }
  }
  const out = {} as Record<K, Interval>;
  for (const [name, list] of values) {
    const sorted = Float64Array.from(list).sort();
    const tail = (1 - level) / 2;
    out[name] =
      sorted.length === 0
        ? { low: Number.NaN, high: Number.NaN, samples: 0 }
        : { low: quantile(sorted, tail), high: quantile(sorted, 1 - tail), samples: sorted.length };
  }
  return out;
}
