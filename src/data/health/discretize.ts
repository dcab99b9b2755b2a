import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkType } from '../check';
import { type BinGrid, fillForward, PlainBins, rowBins } from './forward';
import { pythonFloat, pythonStrip } from './python';
import {
  categoryIndex,
  columnNames,
  fillValues,
  firstColumn,
  healthVariables,
  valueColumns,
  variableByName,
  variableCount,
  writeValue,
} from './schema';

/** How bins without a reading get a value. */
export type Fill = 'previous' | 'next' | 'normal' | 'zero';

/** Options of the published discretiser. */
export interface DiscretizeOptions {
  /** Bin width in hours, > 0; default 1. */
  step?: number | undefined;
  /**
   * `previous` (default): the last reading of an earlier bin, before the first one the variable's fill-in value; `next`: the same
   * backwards; `normal`: always the fill-in value; `zero`: 0, and no category set.
   */
  fill?: Fill | undefined;
  /** Where hour 0 lies: `zero` (default) as in the file, `relative` at the first row. */
  start?: 'zero' | 'relative' | undefined;
  /** Append one 0/1 column a variable: read in this bin or not. Default true. */
  masks?: boolean | undefined;
  /** End of the stay in hours (as in the file, also with start `relative`). Default: the last time. */
  end?: number | null | undefined;
  /** A category text that is not in the list: an error (default), or skipped and counted. */
  unknown?: 'error' | 'skip' | undefined;
  /** Name of the input in error messages; default `episode`. */
  file?: string | undefined;
}

/** A discretised stay. */
export interface DiscretizedEpisode {
  /** `[bins, channels]`, row-major. */
  values: Float64Array;
  dims: [bins: number, channels: number];
  /** Name of each channel. */
  columns: string[];
  /** Readings left out because of `unknown: 'skip'`. */
  skipped: number;
}

/** Readings of one stay in time order, from any source. */
export interface ReadingSource {
  /** Time of each row in hours. */
  readonly hours: ArrayLike<number>;
  /** Calls `write` for every reading of row `row`: the number, or the position of the category. Returns how many it skipped. */
  read(row: number, write: (variable: number, value: number) => void): number;
  /** Name of a row in messages. */
  place(row: number): string;
}

/** What is wrong with a call of `read`: kept out of the loops that call it rightly. */
export function misread({ hours }: ReadingSource, row: unknown, write: unknown): HPformerError {
  checkType('read: write', write, 'function');
  return new HPformerError('ERR_HPFORMER_RANGE', `read: row: expected 0…${hours.length - 1}, got ${describe(row)}`);
}

const eps = 1e-6;
const allColumns = columnNames(true);
const plainColumns = columnNames(false);

function bad(message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_INPUT', message);
}

function wrongOption(name: string, expected: string, value: unknown): HPformerError {
  return new HPformerError('ERR_HPFORMER_RANGE', `discretize: ${name}: expected ${expected}, got ${describe(value)}`);
}

/** The options with every default filled in, checked. */
export interface CheckedOptions {
  step: number;
  fill: Fill;
  start: 'zero' | 'relative';
  masks: boolean;
  end: number | undefined;
  skipUnknown: boolean;
  file: string;
}

// `compat` belongs to extraction and labels; here it is taken and changes nothing.
const optionNames = new Set(['step', 'fill', 'start', 'masks', 'end', 'unknown', 'file', 'compat']);

/** Checks discretiser options. @throws HPformerError `ERR_HPFORMER_RANGE`. */
export function checkDiscretizeOptions(options: DiscretizeOptions): CheckedOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    throw wrongOption('options', 'an object', options);
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name)) {
      throw wrongOption('options', `only ${[...optionNames].join(', ')}`, name);
    }
  }
  const { step = 1, start = 'zero', masks = true, unknown = 'error', file = 'episode' } = options;
  const end = options.end ?? undefined;
  // The reference spells one strategy "normal_value"; configurations carry that name.
  const given: string = options.fill === undefined ? 'previous' : options.fill;
  const fill = (given === 'normal_value' ? 'normal' : given) as Fill;
  if (!(typeof step === 'number' && step > 0 && Number.isFinite(step))) {
    throw wrongOption('step', 'a positive number of hours', step);
  }
  if (!['previous', 'next', 'normal', 'zero'].includes(fill)) {
    throw wrongOption('fill', 'previous, next, normal or zero', options.fill);
  }
  if (start !== 'zero' && start !== 'relative') throw wrongOption('start', 'zero or relative', start);
  if (typeof masks !== 'boolean') throw wrongOption('masks', 'true or false', masks);
  if (end !== undefined && !(typeof end === 'number' && Number.isFinite(end))) {
    throw wrongOption('end', 'a number of hours', end);
  }
  if (unknown !== 'error' && unknown !== 'skip') throw wrongOption('unknown', 'error or skip', unknown);
  if (typeof file !== 'string') throw wrongOption('file', 'a string', file);
  return { step, fill, start, masks, end, skipUnknown: unknown === 'skip', file };
}

/** Memory for one stay's bins that is used again for the next stay. */
export class BinMemory {
  private values = new Float64Array(0);

  /** `length` zeros, valid until the next call. */
  zeros(length: number): Float64Array {
    if (this.values.length < length) {
      this.values = new Float64Array(length);
      return this.values;
    }
    return this.values.subarray(0, length).fill(0);
  }
}

/** 30 years of hours, 160 MB of values: one row with a time far away may not fill the memory. */
export const mostBins = 2 ** 18;

/**
 * The bins of a stay, its rows checked.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` for times that go back by 1e-6 h or more, that are no numbers, an end before the start, or
 * more than 262,144 bins.
 */
export function binGrid(source: ReadingSource, options: CheckedOptions): BinGrid {
  const { hours } = source;
  const rows = hours.length;
  const { step } = options;
  for (let i = 1; i < rows; i++) {
    if (!(hours[i - 1]! < hours[i]! + eps)) {
      throw bad(
        `${source.place(i)}, column "Hours": expected times that do not go back, got ${hours[i]} after ${hours[i - 1]}`,
      );
    }
  }
  if (rows === 0 && (options.start === 'relative' || options.end === undefined)) {
    throw bad(`${options.file}: expected at least one row, got none`);
  }
  const first = options.start === 'relative' ? hours[0]! : 0;
  let last = options.end;
  if (last === undefined) {
    last = hours[0]!;
    for (let i = 1; i < rows; i++) if (hours[i]! > last) last = hours[i]!;
  }
  const length = last - first;
  const bins = Math.trunc(length / step + 1.0 - eps) + 0; // no negative zero
  if (!(bins >= 0) || length < -eps)
    throw bad(`${options.file}: expected an end after the start, got ${length} hours from start to end`);
  if (bins > mostBins)
    throw bad(`${options.file}: expected at most ${mostBins} bins, got ${bins}: ${length} hours in steps of ${step}`);
  return { first, length, step, bins };
}

/**
 * The published discretiser on readings of any source: bins, fills, masks. Everything is computed in float64 in the reference's order
 * of operations, so the result has the reference's bits.
 *
 * @param memory where `values` of the result lies; default: memory of its own.
 * @throws HPformerError `ERR_HPFORMER_INPUT` as {@link binGrid}, and for times that fall into no bin.
 */
export function binReadings(source: ReadingSource, options: CheckedOptions, memory?: BinMemory): DiscretizedEpisode {
  const grid = binGrid(source, options);
  const { first, length, step, bins } = grid;
  const { hours } = source;
  const width = options.masks ? valueColumns + variableCount : valueColumns;
  const values = memory?.zeros(bins * width) ?? new Float64Array(bins * width);
  const result = {
    values,
    dims: [bins, width] as [number, number],
    columns: [...(options.masks ? allColumns : plainColumns)],
  };
  const found = options.fill === 'previous' ? rowBins(source, grid) : undefined;
  if (found) return { ...result, skipped: fillForward(source, found, bins, new PlainBins(values, width)) };
  const mask = new Uint8Array(bins * variableCount);
  let skipped = 0;
  let bin = 0;
  const write = (variable: number, value: number): void => {
    writeValue(values, bin * width, variable, value);
    mask[bin * variableCount + variable] = 1;
  };
  for (let i = 0; i < hours.length; i++) {
    const t = hours[i]! - first;
    if (t > length + eps) continue;
    bin = Math.trunc(t / step - eps);
    if (!(bin >= 0 && bin < bins)) {
      throw bad(
        `${source.place(i)}, column "Hours": expected a time in one of the ${bins} bins of ${step} h, got ${hours[i]}`,
      );
    }
    skipped += source.read(i, write);
  }
  if (options.fill !== 'zero') fillMissing(values, mask, bins, width, options.fill);
  if (options.masks) {
    for (let b = 0; b < bins; b++) {
      for (let v = 0; v < variableCount; v++) values[b * width + valueColumns + v] = mask[b * variableCount + v]!;
    }
  }
  return { ...result, skipped };
}

function fillMissing(values: Float64Array, mask: Uint8Array, bins: number, width: number, fill: Fill): void {
  const backwards = fill === 'next';
  const latest = new Int32Array(variableCount).fill(-1);
  for (let i = 0; i < bins; i++) {
    const b = backwards ? bins - 1 - i : i;
    const row = b * width;
    for (let v = 0; v < variableCount; v++) {
      if (mask[b * variableCount + v] === 1) {
        latest[v] = b;
        continue;
      }
      const known = fill === 'normal' ? -1 : latest[v]!;
      const begin = firstColumn[v]!;
      const end = firstColumn[v + 1]!;
      if (known < 0) {
        // Unread bins are zero so far, so a category needs its one only.
        if (categoryIndex[v]) values[row + begin + fillValues[v]!] = 1;
        else values[row + begin] = fillValues[v]!;
      } else {
        const from = known * width;
        for (let c = begin; c < end; c++) values[row + c] = values[from + c]!;
      }
    }
  }
}

/**
 * Splits an episode file into rows and reads their times; values are read only when asked for, since the reference never looks at
 * rows after the end.
 */
export class EpisodeText implements ReadingSource {
  readonly hours: Float64Array;
  private readonly lines: string[];
  private readonly lineNumbers: Int32Array;
  /** Variable of each column, −1 for the time, −2 for a name that is not known. */
  private readonly variables: Int32Array;
  private readonly names: string[];

  constructor(
    text: string,
    private readonly file: string,
    private readonly skipUnknown: boolean,
  ) {
    if (typeof text !== 'string') throw bad(`${file}: expected the text of an episode file, got ${describe(text)}`);
    const lines = (text.charCodeAt(0) === 0xfeff ? text.slice(1) : text).split(/\r\n|\n|\r/);
    if (lines.at(-1) === '') lines.pop();
    this.names = pythonStrip(lines[0] ?? '').split(',');
    if (this.names[0] !== 'Hours') {
      throw bad(`${file} line 1: expected the first column "Hours", got ${describe(this.names[0])}`);
    }
    this.variables = Int32Array.from(this.names, (name, i) => (i === 0 ? -1 : (variableByName.get(name) ?? -2)));
    const rows = lines.length - 1;
    if (rows === 0) throw bad(`${file}: expected at least one row after the header, got none`);
    this.lines = new Array(rows);
    this.lineNumbers = new Int32Array(rows);
    this.hours = new Float64Array(rows);
    for (let i = 0; i < rows; i++) {
      const line = pythonStrip(lines[i + 1]!);
      this.lines[i] = line;
      this.lineNumbers[i] = i + 2;
      const comma = line.indexOf(',');
      const field = comma < 0 ? line : line.slice(0, comma);
      const time = pythonFloat(field);
      if (time === undefined || (Number.isNaN(time) && rows === 1)) {
        throw bad(`${file} line ${i + 2}, column "Hours": expected a number of hours, got ${describe(field)}`);
      }
      let fields = 1;
      for (let at = comma; at >= 0; at = line.indexOf(',', at + 1)) fields++;
      if (fields !== this.names.length) {
        throw bad(`${file} line ${i + 2}: expected ${this.names.length} fields as in the header, got ${fields}`);
      }
      this.hours[i] = time;
    }
  }

  place(row: number): string {
    return `${this.file} line ${this.lineNumbers[row]}`;
  }

  read(row: number, write: (variable: number, value: number) => void): number {
    const line = this.lines[row];
    if (line === undefined || typeof write !== 'function') throw misread(this, row, write);
    let skipped = 0;
    let column = 0;
    let at = line.indexOf(',');
    while (at >= 0) {
      column++;
      const next = line.indexOf(',', at + 1);
      const end = next < 0 ? line.length : next;
      if (end > at + 1) {
        const field = line.slice(at + 1, end);
        const variable = this.variables[column]!;
        const value = variable >= 0 ? readValue(variable, field) : undefined;
        if (value !== undefined) {
          write(variable, value);
        } else if (this.skipUnknown && (variable < 0 || categoryIndex[variable])) {
          skipped++;
        } else {
          throw bad(this.complaint(row, column, field));
        }
      }
      at = next;
    }
    return skipped;
  }

  private complaint(row: number, column: number, field: string): string {
    const where = `${this.place(row)}, column ${describe(this.names[column])}`;
    const variable = this.variables[column]!;
    if (variable < 0)
      return `${where}: expected the name of one of the ${variableCount} variables, with the value ${describe(field)}`;
    const categories = healthVariables[variable]!.categories;
    if (!categories) return `${where}: expected a number, got ${describe(field)}`;
    return `${where}: expected one of ${categories.map((text) => `"${text}"`).join(', ')}, got ${describe(field)}`;
  }
}

/** A field of an episode file as a number or the position of its category; undefined when it is neither. */
export function readValue(variable: number, text: string): number | undefined {
  return categoryIndex[variable] ? categoryIndex[variable].get(text) : pythonFloat(text);
}

/**
 * The published discretiser: the text of an episode file to bins of `step` hours with 59 value columns and 17 masks. Numbers are read
 * as Python's `float()` reads them, category texts must match exactly, the last reading of a bin wins, a time t lies in bin
 * trunc(t/step − 1e-6), rows more than 1e-6 h after the end are left out.
 *
 * @param csvText content of `…_timeseries.csv`.
 * @throws HPformerError `ERR_HPFORMER_INPUT`, naming file, line and column, where the reference stops; `ERR_HPFORMER_RANGE` for options.
 */
export function discretize(csvText: string, options: DiscretizeOptions = {}): DiscretizedEpisode {
  const checked = checkDiscretizeOptions(options);
  return binReadings(new EpisodeText(csvText, checked.file, checked.skipUnknown), checked);
}
