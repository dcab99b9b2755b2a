import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkFields, checkList, checkOptions, checkType, isList, wrongType } from '../check';
import { columnNames } from './schema';

/** Which columns are scaled, and with which divisor. */
export type NormalizerKind = 'all' | 'numeric';

/** Options of {@link Normalizer.fit}. */
export interface NormalizerOptions {
  /**
   * `all` (default): the authors' scaler over every column, variance divided by N, constant columns scaled by 1.
   * `numeric`: YerevaNN's over number columns only (those whose name lacks `->`), divided by N − 1, at least 1e-7.
   */
  columns?: NormalizerKind | undefined;
  /** Columns of a row; default 76. */
  width?: number | undefined;
  /** Names of the columns, needed for `numeric` where the width is neither 76 nor 59. */
  names?: readonly string[] | undefined;
}

/** The form that {@link Normalizer.toJSON} gives and {@link Normalizer.fromJSON} reads. */
export interface NormalizerJSON {
  format: 'hpformer.normalizer';
  version: 1;
  columns: NormalizerKind;
  width: number;
  /** NormalizerRows seen in fitting; 0 when not known. */
  n_samples_seen: number;
  /** Column names, where known. */
  names?: string[];
  mean: number[];
  /** Variance with the divisor of the kind; absent when only scales are known. */
  var?: number[];
  scale: number[];
}

/** Rows of one episode: the numbers alone, or with their dims as `discretize` returns them. */
export type NormalizerRows =
  | ArrayLike<number>
  | { readonly values: ArrayLike<number>; readonly dims?: readonly number[] };

function wrong(message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_INPUT', `normalizer: ${message}`);
}

function rowsOf(value: NormalizerRows): { data: ArrayLike<number>; width: number | undefined } {
  if (value !== null && typeof value === 'object' && 'values' in value && typeof value.values !== 'function') {
    const { values, dims } = value as { values: unknown; dims?: unknown };
    if (!isList(values)) throw wrong(`expected rows of numbers as values, got ${describe(values)}`);
    checkType('normalizer: dims', dims, 'array?');
    return { data: values as ArrayLike<number>, width: (dims as readonly number[] | undefined)?.at(-1) };
  }
  if (!isList(value)) throw wrong(`expected rows of numbers, got ${describe(value)}`);
  return { data: value as ArrayLike<number>, width: undefined };
}

/**
 * Count, mean and sum of squared deviations of each column of one stay: `[3, width]` into `out`. NaN entries are left out column by
 * column, as scikit-learn does.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` for infinities.
 */
export function stayMoments(out: Float64Array, data: ArrayLike<number>, width: number, rows: number): void {
  for (let c = 0; c < width; c++) {
    // Shifting by the column's first value keeps constant columns exact and avoids cancellation.
    let shift = Number.NaN;
    let n = 0;
    let sum = 0;
    for (let r = 0; r < rows; r++) {
      const x = data[r * width + c]!;
      if (Number.isNaN(x)) continue;
      if (!Number.isFinite(x))
        throw wrong(`row ${r}, column ${c}: expected a finite number or NaN, got ${describe(x)}`);
      if (n++ === 0) shift = x;
      else sum += x - shift;
    }
    const mean = n === 0 ? 0 : shift + sum / n;
    let squares = 0;
    let rest = 0;
    for (let r = 0; r < rows; r++) {
      const x = data[r * width + c]!;
      if (Number.isNaN(x)) continue;
      squares += (x - mean) * (x - mean);
      rest += x - mean;
    }
    out[c] = n;
    out[width + c] = mean;
    out[2 * width + c] = n === 0 ? 0 : squares - (rest * rest) / n;
  }
}

/**
 * Running mean and sum of squared deviations by column, merged stay by stay (Chan et al.), so a million episodes need the memory of
 * one. Merged in the order of the stays, whichever thread their moments come from: the same bits.
 */
class Moments {
  readonly count: Float64Array;
  readonly mean: Float64Array;
  readonly squares: Float64Array;

  constructor(readonly width: number) {
    this.count = new Float64Array(width);
    this.mean = new Float64Array(width);
    this.squares = new Float64Array(width);
  }

  add(moments: Float64Array): void {
    const { width } = this;
    for (let c = 0; c < width; c++) {
      const n = moments[c]!;
      if (n === 0) continue;
      const mean = moments[width + c]!;
      const before = this.count[c]!;
      const total = before + n;
      const delta = mean - this.mean[c]!;
      this.mean[c] = before === 0 ? mean : this.mean[c]! + (delta * n) / total;
      this.squares[c] = this.squares[c]! + moments[2 * width + c]! + (delta * delta * before * n) / total;
      this.count[c] = total;
    }
  }
}

/** Scales feature columns to (x − mean) / scale; see {@link NormalizerOptions.columns} for the two published kinds. */
export class Normalizer {
  readonly width: number;
  readonly kind: NormalizerKind;
  private readonly means: Float64Array;
  private readonly scales: Float64Array;
  private readonly json: NormalizerJSON;

  private constructor(json: NormalizerJSON) {
    checkFields('normalizer', json, { width: 'number', columns: 'string', mean: 'numbers', scale: 'numbers' });
    this.json = json;
    this.width = json.width;
    this.kind = json.columns;
    this.means = Float64Array.from(json.mean);
    this.scales = Float64Array.from(json.scale);
    if (json.columns === 'numeric') {
      const scaled = numericColumns(json.width, json.names);
      for (let c = 0; c < json.width; c++) {
        if (scaled[c] === 1) continue;
        this.means[c] = 0;
        this.scales[c] = 1;
      }
    }
  }

  /** Column means, as applied (0 where a column is not scaled). */
  get mean(): readonly number[] {
    return Array.from(this.means);
  }

  /** Column scales, as applied (1 where a column is not scaled). */
  get scale(): readonly number[] {
    return Array.from(this.scales);
  }

  /**
   * Fits on the rows of all given episodes, before padding. Each episode is looked at once and not kept.
   *
   * @param episodes arrays of rows (`width` numbers each) or discretised episodes.
   * @throws HPformerError `ERR_HPFORMER_INPUT` for no rows, infinities or a width that does not fit.
   */
  static fit(episodes: Iterable<NormalizerRows>, options: NormalizerOptions = {}): Normalizer {
    if (typeof (episodes as Partial<Iterable<unknown>> | null | undefined)?.[Symbol.iterator] !== 'function')
      throw wrong(`fit: expected an iterable of episodes, got ${describe(episodes)}`);
    const fitter = new NormalizerFitter(options);
    for (const episode of episodes) fitter.add(episode);
    return fitter.finish();
  }

  /** Reads {@link NormalizerJSON}, a scikit-learn dump (`mean`, `scale`) or YerevaNN's statistics (`means`, `stds`, numeric columns). */
  static fromJSON(value: unknown): Normalizer {
    let json = value as Record<string, unknown> | null;
    if (typeof value === 'string') {
      try {
        json = JSON.parse(value) as Record<string, unknown> | null;
      } catch (error) {
        throw wrong(`expected JSON text, got ${(error as Error).message}`);
      }
    }
    if (json === null || typeof json !== 'object') {
      throw wrong(`expected the JSON of a normalizer, got ${describe(value)}`);
    }
    const numbers = (name: string): number[] | undefined => {
      const list = json[name];
      if (list === undefined) return undefined;
      if (!Array.isArray(list) || !list.every((x) => typeof x === 'number' && Number.isFinite(x))) {
        throw wrong(`${name}: expected a list of numbers, got ${describe(list)}`);
      }
      return list as number[];
    };
    if (json.version !== undefined && json.version !== 1) {
      throw wrong(`version: expected 1, got ${describe(json.version)}`);
    }
    const yerevann = json.means !== undefined;
    const mean = numbers(yerevann ? 'means' : 'mean');
    const scale = numbers(yerevann ? 'stds' : 'scale');
    if (!mean || !scale) throw wrong(`expected the lists "mean" and "scale", got ${Object.keys(json).join(', ')}`);
    if (mean.length !== scale.length || (json.width !== undefined && json.width !== mean.length)) {
      throw wrong(`expected as many means as scales, got ${mean.length} and ${scale.length}`);
    }
    if (!scale.every((x) => x > 0)) throw wrong('scale: expected positive numbers');
    const columns = yerevann ? 'numeric' : (json.columns ?? 'all');
    if (columns !== 'all' && columns !== 'numeric') {
      throw wrong(`columns: expected "all" or "numeric", got ${describe(columns)}`);
    }
    const names = (yerevann ? json.columns : json.names) as string[] | undefined;
    const variance = numbers('var');
    return new Normalizer({
      format: 'hpformer.normalizer',
      version: 1,
      columns,
      width: mean.length,
      n_samples_seen: typeof json.n_samples_seen === 'number' ? json.n_samples_seen : 0,
      ...(Array.isArray(names) ? { names: [...names] } : {}),
      mean: [...mean],
      ...(variance ? { var: [...variance] } : {}),
      scale: [...scale],
    });
  }

  /** @internal */
  static of(json: NormalizerJSON): Normalizer {
    return new Normalizer(json);
  }

  /** Plain data that {@link Normalizer.fromJSON} reads back to the same bits. */
  toJSON(): NormalizerJSON {
    return structuredClone(this.json);
  }

  /**
   * A new array of (x − mean) / scale. NaN stays NaN.
   *
   * @param values rows of `width` numbers, or a discretised episode.
   * @throws HPformerError `ERR_HPFORMER_SHAPE` when the length is no multiple of the width.
   */
  apply(values: NormalizerRows): Float64Array {
    const { data, width } = rowsOf(values);
    const own = this.width;
    if (data.length % own !== 0 || (width !== undefined && width !== own)) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `normalizer: expected rows of ${own} columns, got ${width === undefined ? `${data.length} numbers` : `${describe(width)} columns`}`,
      );
    }
    const out = new Float64Array(data.length);
    this.applyTo(out, data);
    return out;
  }

  /** As {@link apply}, into the beginning of `out`; no allocation, and the lengths are not compared. */
  applyTo(out: Float64Array | Float32Array, data: ArrayLike<number>): void {
    const { means, scales, width } = this;
    checkList('normalizer', 'out', out);
    checkList('normalizer', 'data', data);
    try {
      for (let i = 0; i < data.length; i += width) {
        for (let c = 0; c < width; c++) out[i + c] = (data[i + c]! - means[c]!) / scales[c]!;
      }
    } catch {
      // Arithmetic fails on bigints and symbols only: not worth a look at every number.
      throw wrongType('normalizer: data', 'a list of numbers', data);
    }
  }
}

/** Fits a {@link Normalizer} one episode at a time, for asynchronous sources. */
export class NormalizerFitter {
  private readonly moments: Moments;
  private readonly kind: NormalizerKind;
  private readonly names: string[] | undefined;
  private rows = 0;

  constructor(options: NormalizerOptions = {}) {
    checkOptions('normalizer', options);
    const { columns = 'all', width = 76, names } = options ?? {};
    if (columns !== 'all' && columns !== 'numeric') {
      throw new HPformerError(
        'ERR_HPFORMER_RANGE',
        `normalizer: columns: expected "all" or "numeric", got ${describe(columns)}`,
      );
    }
    if (!Number.isInteger(width) || width < 1) {
      throw new HPformerError(
        'ERR_HPFORMER_RANGE',
        `normalizer: width: expected an integer of at least 1, got ${describe(width)}`,
      );
    }
    if (columns === 'numeric') numericColumns(width, names);
    checkType('normalizer: names', names, 'strings?');
    this.kind = columns;
    this.names = names ? [...names] : undefined;
    this.moments = new Moments(width);
  }

  /** Adds the rows of one episode. */
  add(episode: NormalizerRows): void {
    const { data, width } = rowsOf(episode);
    const own = this.moments.width;
    if (data.length % own !== 0 || (width !== undefined && width !== own)) {
      throw wrong(
        `expected rows of ${own} columns, got ${width === undefined ? `${data.length} numbers` : `${describe(width)} columns`}`,
      );
    }
    const moments = new Float64Array(3 * own);
    stayMoments(moments, data, own, data.length / own);
    this.moments.add(moments);
    this.rows += data.length / own;
  }

  /** Adds one episode by the moments of its `rows` rows, as `stayMoments` gives them. @internal */
  addMoments(moments: Float64Array, rows: number): void {
    checkType('normalizer: moments', moments, 'numbers');
    this.moments.add(moments);
    this.rows += rows;
  }

  /** The normalizer of everything added. @throws HPformerError `ERR_HPFORMER_INPUT` without rows. */
  finish(): Normalizer {
    const { width, mean, squares, count } = this.moments;
    if (this.rows === 0) throw wrong('expected at least one row to fit, got none');
    const epsilon = Number.EPSILON;
    const variance: number[] = [];
    const scale: number[] = [];
    for (let c = 0; c < width; c++) {
      const n = count[c]!;
      if (n === 0) throw wrong(`column ${c}: expected at least one number to fit, got only NaN`);
      if (this.kind === 'numeric') {
        const v = n > 1 ? squares[c]! / (n - 1) : 0;
        variance.push(v);
        scale.push(Math.max(Math.sqrt(v), 1e-7));
      } else {
        const v = squares[c]! / n;
        const bound = n * epsilon * v + (n * mean[c]! * epsilon) ** 2;
        variance.push(v);
        scale.push(v <= bound ? 1 : Math.sqrt(v));
      }
    }
    return Normalizer.of({
      format: 'hpformer.normalizer',
      version: 1,
      columns: this.kind,
      width,
      n_samples_seen: this.rows,
      ...(this.names ? { names: this.names } : {}),
      mean: Array.from(mean),
      var: variance,
      scale,
    });
  }
}

/** 1 for the columns that hold plain numbers: their names lack `->`. */
function numericColumns(width: number, names?: readonly string[]): Uint8Array {
  const known = names ?? (width === 76 ? columnNames(true) : width === 59 ? columnNames(false) : undefined);
  if (!known || known.length !== width || !known.every((name) => typeof name === 'string')) {
    throw wrong(
      `columns "numeric" need the names of all ${width} columns, got ${known?.length === width ? 'others than texts' : known ? `${known.length} names` : 'none'}`,
    );
  }
  return Uint8Array.from(known, (name) => (name.includes('->') ? 0 : 1));
}
