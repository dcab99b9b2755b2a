import { HPformerError } from '../../errors';
import { checkInteger } from '../../model/options';
import { describe } from '../../tensor/shape';
import { checkFields, checkType, wrongType } from '../check';
import { parseEpisodeBytes } from './byteEpisode';
import {
  BinMemory,
  binGrid,
  binReadings,
  type CheckedOptions,
  checkDiscretizeOptions,
  type DiscretizeOptions,
  EpisodeText,
  misread,
  type ReadingSource,
} from './discretize';
import { borrowBytesSync } from './files';
import { fillForward, rowBins, ScaledSteps } from './forward';
import { Normalizer } from './normalizer';
import { columnNames, firstColumn, valueColumns, variableCount } from './schema';
import { checkTask, type HealthTask } from './tasks';

/** Discretiser options that belong to a model: what a bundle stores. */
export type BinOptions = Pick<DiscretizeOptions, 'step' | 'fill' | 'start' | 'masks'>;

/** {@link BinOptions} with every default filled in. */
export type BinSettings = { [Name in keyof BinOptions]-?: Exclude<BinOptions[Name], undefined> };

/** One stay before discretising, from a source of any format. */
export interface EpisodeInput {
  /** Name of the stay: `10001_episode1`. */
  id: string;
  /** Where it came from, for messages. */
  file: string;
  /** Its readings; unknown category texts stop it or are skipped. */
  open(unknown: 'error' | 'skip'): ReadingSource;
}

/** One stay as a model input. */
export interface PreparedEpisode {
  id: string;
  /** `[steps, columns]`, normalised, zero after the stay's own bins. */
  features: Float32Array;
  /** Bins of the stay within `steps`. */
  bins: number;
  /** The step that the published readout marks. */
  step: number;
  /** Readings skipped for unknown texts. */
  skipped: number;
  /** Share of (bin, variable) pairs of the stay with a reading; undefined without masks. */
  observed: number | undefined;
  /** Hours from the last reading used to the end of the last bin. */
  lastReadingAge: number;
  /** Bins of the stay after `steps`, which no model sees; undefined where not known (prepared arrays). */
  cut?: number | undefined;
}

/** Options of {@link EpisodePreparer}. */
export interface PrepareOptions {
  task: HealthTask;
  normalizer?: Normalizer | undefined;
  bins?: BinOptions | undefined;
  unknown?: 'error' | 'skip' | undefined;
}

const eps = 1e-6;

/** Rows of a source within a window, as the task scripts keep them; the source itself where that is all of them. */
function window(inner: ReadingSource, end: number): ReadingSource {
  const { hours } = inner;
  let kept = 0;
  // Order is checked on all rows: a filter must not hide times that go back.
  for (let i = 0; i < hours.length; i++) {
    const t = hours[i]!;
    if (i > 0 && !(hours[i - 1]! < t + eps)) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${inner.place(i)}, column "Hours": expected times that do not go back, got ${t} after ${hours[i - 1]}`,
      );
    }
    if (t > -eps && t < end + eps) kept++;
  }
  return kept === hours.length ? inner : new Window(inner, end, kept);
}

class Window implements ReadingSource {
  readonly hours: Float64Array;
  private readonly rows: Int32Array;

  constructor(
    private readonly inner: ReadingSource,
    end: number,
    count: number,
  ) {
    this.hours = new Float64Array(count);
    this.rows = new Int32Array(count);
    let kept = 0;
    for (let i = 0; i < inner.hours.length; i++) {
      const t = inner.hours[i]!;
      if (!(t > -eps && t < end + eps)) continue;
      this.rows[kept] = i;
      this.hours[kept++] = t;
    }
  }

  read(row: number, write: (variable: number, value: number) => void): number {
    return this.inner.read(this.rows[row]!, write);
  }

  place(row: number): string {
    return this.inner.place(this.rows[row]!);
  }
}

/** One stay in bins, neither normalised nor padded. */
export interface BinnedEpisode {
  /** `[bins, columns]`. */
  values: Float64Array;
  bins: number;
  /** Readings skipped for unknown texts. */
  skipped: number;
  /** Hours of the last reading used, and of the end of the stay. */
  last: number;
  end: number;
}

interface ReadEpisode {
  rows: ReadingSource;
  last: number;
  end: number;
  options: CheckedOptions;
}

/** The published pipeline of one task, from readings to padded, normalised steps. Keeps nothing between stays. */
export class EpisodePreparer {
  readonly task: HealthTask;
  readonly columns: readonly string[];
  readonly normalizer: Normalizer | undefined;
  private readonly options: CheckedOptions;
  private readonly unknown: 'error' | 'skip';
  private readonly memory = new BinMemory();
  private readonly scaled: ScaledSteps;

  /** @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE`; `ERR_HPFORMER_SHAPE` for a normaliser of another width. */
  constructor(options: PrepareOptions) {
    checkFields('EpisodePreparer', options, { task: 'object', normalizer: 'object?', bins: 'object?' });
    const { task, normalizer, bins = {}, unknown = 'error' } = options;
    checkTask('EpisodePreparer: task', task);
    if (normalizer !== undefined) checkNormalizer('EpisodePreparer: normalizer', normalizer);
    this.task = task;
    this.normalizer = normalizer;
    this.unknown = unknown;
    this.options = checkDiscretizeOptions({ ...bins, unknown });
    this.columns = columnNames(this.options.masks);
    if (normalizer && normalizer.width !== this.columns.length) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `normalizer: expected ${this.columns.length} columns, got ${normalizer.width}`,
      );
    }
    this.scaled = new ScaledSteps(normalizer, this.columns.length);
  }

  /**
   * Discretises one stay without normalising or padding.
   *
   * @param end last hour; default the task's, or the time of the last reading.
   * @returns undefined when no reading lies in the window (the published scripts leave such stays out).
   */
  bin(input: EpisodeInput, end?: number): BinnedEpisode | undefined {
    const read = this.read(input, end);
    return read && this.binned(read);
  }

  /** The rows of a stay that count, and the options of its bins. */
  private read(input: EpisodeInput, end?: number): ReadEpisode | undefined {
    if (typeof input?.open !== 'function') throw wrongType('EpisodePreparer', 'an EpisodeInput', input);
    if (end !== undefined && end !== null) checkEnd(end);
    const limit = end ?? this.task.end ?? Number.POSITIVE_INFINITY;
    const source = input.open(this.unknown);
    checkFields('EpisodePreparer: readings', source, { hours: 'numbers', read: 'function', place: 'function' });
    const rows = window(source, limit);
    if (rows.hours.length === 0) return undefined;
    const last = rows.hours[rows.hours.length - 1]!;
    const stop = Number.isFinite(limit) ? limit : last;
    return { rows, last, end: stop, options: { ...this.options, end: stop, file: input.file } };
  }

  private binned({ rows, last, end, options }: ReadEpisode, memory?: BinMemory): BinnedEpisode | undefined {
    const { values, dims, skipped } = binReadings(rows, options, memory);
    // A first reading at hour 0 exactly leaves a stay of no length: it has no bin.
    return dims[0] === 0 ? undefined : { values, bins: dims[0], skipped, last, end };
  }

  /**
   * One stay as a model input.
   *
   * @param end last hour; default the task's, or the time of the last reading.
   * @param features zeros that are filled and become the result's; default: memory of its own.
   * @returns undefined when it has no reading in the window.
   */
  prepare(input: EpisodeInput, end?: number, features?: Float32Array): PreparedEpisode | undefined {
    const read = this.read(input, end);
    if (!read) return undefined;
    const width = this.columns.length;
    const { steps } = this.task;
    if (features !== undefined) checkFeatures(features, steps * width);
    const grid = this.options.fill === 'previous' ? binGrid(read.rows, read.options) : undefined;
    const found = grid && grid.bins > 0 ? rowBins(read.rows, grid) : undefined;
    let all: number;
    let skipped: number;
    let seen: number;
    let out: Float32Array;
    if (grid && found) {
      all = grid.bins;
      out = features ?? new Float32Array(steps * width);
      this.scaled.begin(out, Math.min(all, steps));
      skipped = fillForward(read.rows, found, grid.bins, this.scaled);
      seen = this.scaled.seen;
    } else {
      const binned = this.binned(read, this.memory);
      if (!binned) return undefined;
      all = binned.bins;
      skipped = binned.skipped;
      const bins = Math.min(all, steps);
      const kept = binned.values.subarray(0, bins * width);
      seen = observed(kept, width, bins);
      out = features ?? new Float32Array(steps * width);
      if (this.normalizer) this.normalizer.applyTo(out, kept);
      else out.set(kept);
    }
    const bins = Math.min(all, steps);
    return {
      id: input.id,
      features: out,
      bins,
      step: bins - 1,
      skipped,
      observed: this.options.masks ? seen / (bins * variableCount) : undefined,
      lastReadingAge: Math.max(0, read.end - read.last),
      cut: all - bins,
    };
  }
}

/** Checks a normaliser. @throws HPformerError `ERR_HPFORMER_TYPE`. */
export function checkNormalizer(where: string, value: unknown): asserts value is Normalizer {
  if (!(value instanceof Normalizer)) throw wrongType(where, 'a Normalizer', value);
}

function checkEnd(end: unknown): void {
  checkType('EpisodePreparer: end', end, 'number');
  if (!Number.isNaN(end)) return;
  throw new HPformerError('ERR_HPFORMER_RANGE', 'EpisodePreparer: end: expected a number of hours, got NaN');
}

function checkFeatures(features: Float32Array, size: number): void {
  checkType('EpisodePreparer: features', features, 'float32');
  if (features.length >= size) return;
  throw new HPformerError(
    'ERR_HPFORMER_SHAPE',
    `EpisodePreparer: features: expected room for ${size} numbers, got ${features.length}`,
  );
}

/** (bin, variable) pairs with a reading, by the masks. */
function observed(values: Float64Array, width: number, bins: number): number {
  let seen = 0;
  for (let b = 0; b < bins; b++) {
    for (let c = valueColumns; c < width; c++) seen += values[b * width + c]!;
  }
  return seen;
}

/**
 * An episode file held as text.
 * @throws HPformerError `ERR_HPFORMER_TYPE`; what is wrong with the text itself, `open` says.
 */
export function episodeFromText(id: string, file: string, text: string): EpisodeInput {
  checkType('episodeFromText: id', id, 'string');
  checkType('episodeFromText: file', file, 'string');
  return { id, file, open: (unknown) => new EpisodeText(text, file, unknown === 'skip') };
}

/**
 * An episode file held as bytes, which must not change.
 * @throws HPformerError `ERR_HPFORMER_TYPE`; what is wrong with the text in them, `open` says.
 */
export function episodeFromBytes(id: string, file: string, bytes: Uint8Array): EpisodeInput {
  checkType('episodeFromBytes: id', id, 'string');
  checkType('episodeFromBytes: file', file, 'string');
  checkType('episodeFromBytes: bytes', bytes, 'bytes');
  return { id, file, open: (unknown) => openBytes(file, bytes, unknown, true) };
}

/** The readings of an episode file; with `own` false they are gone with the next call. */
function openBytes(file: string, bytes: Uint8Array, unknown: 'error' | 'skip', own: boolean): ReadingSource {
  const plain = parseEpisodeBytes(bytes, file, own);
  if (plain) return plain;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  return new EpisodeText(text, file, unknown === 'skip');
}

/** An episode file to read and use at once: its bytes and readings are gone with the next such file. */
export function episodeInPassing(id: string, file: string): EpisodeInput {
  return { id, file, open: (unknown) => openBytes(file, borrowBytesSync(file), unknown, false) };
}

/** One reading in the common form of all row formats. */
export interface TimedReading {
  hours: number;
  variable: number;
  /** The number, or the position of the category. */
  value: number;
}

/** Readings held in memory, sorted by time; rows at one time keep their order. */
export class ReadingList implements ReadingSource {
  readonly hours: Float64Array;
  private readonly sorted: readonly TimedReading[];

  /**
   * @throws HPformerError `ERR_HPFORMER_TYPE`; `ERR_HPFORMER_INPUT` for a reading without a time, or of no variable or category.
   */
  constructor(
    readings: readonly TimedReading[],
    private readonly file: string,
  ) {
    checkType('ReadingList: readings', readings, 'array');
    checkType('ReadingList: file', file, 'string');
    for (const [i, reading] of readings.entries()) {
      if (!isReading(reading)) throw badReading(`${file} reading ${i + 1}`, reading);
    }
    this.sorted = [...readings].sort((a, b) => a.hours - b.hours);
    this.hours = Float64Array.from(this.sorted, (r) => r.hours);
  }

  place(row: number): string {
    checkInteger('ReadingList: row', row, 0, this.sorted.length - 1);
    return `${this.file} reading ${row + 1}`;
  }

  read(row: number, write: (variable: number, value: number) => void): number {
    const reading = this.sorted[row];
    if (!reading || typeof write !== 'function') throw misread(this, row, write);
    write(reading.variable, reading.value);
    return 0;
  }
}

/** A time, and a number or a category of one of the variables. NaN times are refused where bins are made, with their place. */
function isReading(reading: TimedReading | null | undefined): boolean {
  if (typeof reading?.hours !== 'number' || typeof reading.value !== 'number') return false;
  if (!Number.isInteger(reading.variable)) return false;
  const columns = firstColumn[reading.variable + 1]! - firstColumn[reading.variable]!;
  // A variable of one column is a number; of several, the value names one of them.
  return columns === 1 || (Number.isInteger(reading.value) && reading.value >= 0 && reading.value < columns);
}

function badReading(place: string, reading: unknown): HPformerError {
  const { hours, variable, value } = Object(reading) as Record<string, unknown>;
  const got = [hours, variable, value].map(describe).join(', ');
  return new HPformerError(
    'ERR_HPFORMER_INPUT',
    `${place}: expected hours, the number of a variable, and a number or the position of a category, got ${got}`,
  );
}

/** Counts of what was left out, by reason, with the first places. */
export class DropReport {
  private readonly counts = new Map<string, { count: number; examples: string[] }>();

  /** Counts what was dropped for a reason, and keeps a few places as examples. */
  add(reason: string, place: string, count = 1): void {
    checkType('DropReport: reason', reason, 'string');
    checkType('DropReport: place', place, 'string');
    checkInteger('DropReport: count', count, 0, Number.MAX_SAFE_INTEGER);
    if (count === 0) return;
    const entry = this.counts.get(reason) ?? { count: 0, examples: [] };
    entry.count += count;
    if (entry.examples.length < 3) entry.examples.push(place);
    this.counts.set(reason, entry);
  }

  /** Number of things dropped, over all reasons. */
  get total(): number {
    let sum = 0;
    for (const { count } of this.counts.values()) sum += count;
    return sum;
  }

  /** By reason: how many, and where the first three were. */
  toJSON(): Record<string, { count: number; examples: string[] }> {
    return Object.fromEntries([...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** One line for each reason: count and examples. */
  toString(): string {
    return [...this.counts]
      .map(([reason, { count, examples }]) => `${count} × ${reason} (first: ${examples[0]})`)
      .join('\n');
  }
}

/** Counts a stay that goes on after the last step of the model. */
export function countCut(drops: DropReport, { cut = 0, bins }: PreparedEpisode, file: string): void {
  if (cut > 0) drops.add(`later hours of a stay longer than the ${bins} steps of the model`, file);
}

/** Checks a task name. @throws HPformerError `ERR_HPFORMER_RANGE`. */
export function findTask(tasks: Readonly<Record<string, HealthTask>>, name: string): HealthTask {
  const task = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
  if (!task) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `task: expected ${Object.keys(tasks).join(', ')}, got ${describe(name)}`,
    );
  }
  return task;
}
