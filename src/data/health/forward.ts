/**
 * Fill `previous` in one pass over rows in bin order: each bin begins as a copy of the one before, and readings are written over it.
 * The same bins as the discretiser's general way, with or without the normaliser applied on the way.
 */
import type { ReadingSource } from './discretize';
import type { Normalizer } from './normalizer';
import { categoryIndex, fillValues, firstColumn, valueColumns, variableCount, writeValue } from './schema';

const eps = 1e-6;

/** The bins of one stay: hour of the first one's begin, hours from there to the end, hours of one bin, number of bins. */
export interface BinGrid {
  first: number;
  length: number;
  step: number;
  bins: number;
}

/** Bin of each row that counts, −1 for rows after the end; undefined unless every row has one and none an earlier one than before. */
export function rowBins({ hours }: ReadingSource, { first, length, step, bins }: BinGrid): Int32Array | undefined {
  const found = new Int32Array(hours.length);
  let latest = 0;
  for (let i = 0; i < hours.length; i++) {
    const t = hours[i]! - first;
    if (t > length + eps) {
      found[i] = -1;
      continue;
    }
    const bin = Math.trunc(t / step - eps);
    if (!(bin >= latest && bin < bins)) return undefined;
    found[i] = latest = bin;
  }
  return found;
}

/** Where bins are written, one after the other. */
export interface BinWriter {
  /** Begins the next bin with the values of the one before, no reading marked. */
  next(): void;
  /** A reading in the bin begun last. */
  readonly write: (variable: number, value: number) => void;
}

/**
 * Writes all bins of a stay.
 *
 * @param found as {@link rowBins} gives it.
 * @returns readings skipped.
 */
export function fillForward(source: ReadingSource, found: Int32Array, bins: number, target: BinWriter): number {
  let begun = 0;
  let skipped = 0;
  for (let i = 0; i < found.length; i++) {
    const bin = found[i]!;
    if (bin < 0) continue;
    for (; begun <= bin; begun++) target.next();
    skipped += source.read(i, target.write);
  }
  for (; begun < bins; begun++) target.next();
  return skipped;
}

/** Values of a bin before the first reading. */
const unread = (() => {
  const row = new Float64Array(valueColumns);
  for (let v = 0; v < variableCount; v++) {
    if (categoryIndex[v]) row[firstColumn[v]! + fillValues[v]!] = 1;
    else row[firstColumn[v]!] = fillValues[v]!;
  }
  return row;
})();

/** Bins as they are, into zeros. */
export class PlainBins implements BinWriter {
  private row: number;

  constructor(
    private readonly values: Float64Array,
    private readonly width: number,
  ) {
    this.row = -width;
  }

  next(): void {
    const { values, width } = this;
    this.row += width;
    if (this.row === 0) values.set(unread);
    else values.copyWithin(this.row, this.row - width, this.row - width + valueColumns);
  }

  readonly write = (variable: number, value: number): void => {
    const { values, row } = this;
    writeValue(values, row, variable, value);
    if (this.width > valueColumns) values[row + valueColumns + variable] = 1;
  };
}

/**
 * The first bins of a stay as normalised float32 steps. A value is divided once when it is read instead of once in every bin that
 * repeats it: the same quotient, so the same bits. One writer serves stay after stay.
 */
export class ScaledSteps implements BinWriter {
  /** (bin, variable) pairs with a reading, in the steps kept. */
  seen = 0;
  private readonly means: Float64Array;
  private readonly scales: Float64Array;
  /** A row before the first reading, and what 0 and 1 become in each column. */
  private readonly first: Float32Array;
  private readonly zeros: Float32Array;
  private readonly ones: Float32Array;
  private out: Float32Array = new Float32Array(0);
  private kept = 0;
  private bin = -1;
  private row = 0;
  private readonly marked = new Int32Array(variableCount);

  constructor(
    normalizer: Normalizer | undefined,
    private readonly width: number,
  ) {
    const own = <T extends Float32Array | Float64Array>(row: T, data: ArrayLike<number>): T => {
      if (normalizer) normalizer.applyTo(row, data);
      else row.set(data);
      return row;
    };
    this.means = Float64Array.from({ length: width }, (_, c) => normalizer?.mean[c] ?? 0);
    this.scales = Float64Array.from({ length: width }, (_, c) => normalizer?.scale[c] ?? 1);
    const start = new Float64Array(width);
    start.set(unread);
    this.first = own(new Float32Array(width), start);
    this.zeros = own(new Float32Array(width), new Float64Array(width));
    this.ones = own(new Float32Array(width), new Float64Array(width).fill(1));
  }

  /** Begins a stay: the first `bins` of its bins go to `out`. */
  begin(out: Float32Array, bins: number): void {
    this.out = out;
    this.kept = bins;
    this.bin = -1;
    this.seen = 0;
    this.marked.fill(-1);
  }

  next(): void {
    const { out, width, zeros } = this;
    const bin = ++this.bin;
    if (bin >= this.kept) return;
    const row = bin * width;
    this.row = row;
    if (bin === 0) {
      out.set(this.first);
      return;
    }
    out.copyWithin(row, row - width, row - width + valueColumns);
    for (let c = valueColumns; c < width; c++) out[row + c] = zeros[c]!;
  }

  readonly write = (variable: number, value: number): void => {
    const { out, row, bin, width } = this;
    if (bin >= this.kept) return;
    const begin = firstColumn[variable]!;
    if (categoryIndex[variable]) {
      const end = firstColumn[variable + 1]!;
      for (let c = begin; c < end; c++) out[row + c] = this.zeros[c]!;
      out[row + begin + value] = this.ones[begin + value]!;
    } else {
      out[row + begin] = (value - this.means[begin]!) / this.scales[begin]!;
    }
    if (this.marked[variable] === bin) return;
    this.marked[variable] = bin;
    this.seen++;
    const mask = valueColumns + variable;
    if (width > valueColumns) out[row + mask] = this.ones[mask]!;
  };
}
