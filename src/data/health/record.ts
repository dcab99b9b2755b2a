import { HPformerError } from '../../errors';
import { TextWriter } from '../../files';
import { checkFields, checkList, checkType, jsonText, wrongType } from '../check';
import type { PreparedEpisode } from './arrays';
import { type Calibration, calibrateRows, checkCalibrations } from './calibration';

/** One line of a prediction record. Nothing in it is a raw value unless `features` was asked for. */
export interface PredictionRecord {
  format: 'hpformer-prediction';
  version: 1;
  id: string;
  /** When the prediction was made, ISO 8601 in UTC. */
  time: string;
  task: string;
  /** By label. */
  labels: { name: string; raw: number; calibrated: number | null }[];
  /** Share of (hour, variable) pairs with a reading; null where masks are off. */
  observed: number | null;
  /** Steps of the stay that the model saw. */
  steps: number;
  /** Hours from the last reading to the moment of the prediction. */
  lastReadingAge: number;
  /** Readings that were skipped for unknown texts. */
  skipped: number;
  /** SHA-256 of the bundle and of its preprocessing. */
  model: string;
  preprocessing: string;
  device: string;
  warnings: string[];
  /** Only when asked for: the normalised features, `[steps, columns]` row by row. */
  features?: number[];
}

/** What a record says of the model. */
export interface RecordContext {
  task: string;
  labelNames: readonly string[];
  modelHash: string;
  preprocessingHash: string;
  device: string;
  calibration?: readonly (Calibration | null)[] | undefined;
  /** One of the labels is true (softmax): calibrated probabilities sum to 1. Default false. */
  exclusive?: boolean | undefined;
  /** Share of observed values under which a warning is given; default 0.1. */
  leastObserved?: number | undefined;
  /** Hours since the last reading over which a warning is given; default 6. */
  mostAge?: number | undefined;
  /** Write the normalised features into the record. Default false. */
  includeFeatures?: boolean | undefined;
  /** Default: now. */
  now?: (() => Date) | undefined;
}

/**
 * The record of one prediction: probabilities raw and calibrated, how much was observed, how old the last reading was, which model and
 * preprocessing, and warnings.
 *
 * @param raw probabilities of the labels, uncalibrated.
 * @throws HPformerError `ERR_HPFORMER_TYPE` for arguments of other types, `ERR_HPFORMER_SHAPE` when probabilities and labels differ in
 * number.
 */
export function predictionRecord(
  episode: PreparedEpisode,
  raw: ArrayLike<number>,
  context: RecordContext,
): PredictionRecord {
  checkFields('record: episode', episode, {
    id: 'string',
    features: 'list',
    bins: 'number',
    skipped: 'number',
    observed: 'number?',
    lastReadingAge: 'number',
    cut: 'number?',
  });
  checkList('record', 'probabilities', raw);
  checkFields('record: context', context, {
    task: 'string',
    labelNames: 'strings',
    modelHash: 'string',
    preprocessingHash: 'string',
    device: 'string',
    leastObserved: 'number?',
    mostAge: 'number?',
    exclusive: 'boolean?',
    includeFeatures: 'boolean?',
    now: 'function?',
  });
  checkCalibrations('record', context.calibration);
  const { leastObserved = 0.1, mostAge = 6, calibration, exclusive = false } = context;
  const { includeFeatures = false, now = () => new Date() } = context;
  if (raw.length !== context.labelNames.length) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `record: expected ${context.labelNames.length} probabilities, got ${raw.length}`,
    );
  }
  const time = now();
  if (typeof time?.toISOString !== 'function' || Number.isNaN(time.getTime())) {
    throw wrongType('record: now()', 'a valid Date', time);
  }
  const warnings: string[] = [];
  if (episode.observed !== undefined && episode.observed < leastObserved) {
    warnings.push(`only ${(100 * episode.observed).toFixed(1)} % of values were observed`);
  }
  if (episode.lastReadingAge > mostAge) warnings.push(`the last reading is ${episode.lastReadingAge.toFixed(1)} h old`);
  if (episode.cut !== undefined && episode.cut > 0)
    warnings.push(`the stay goes on for ${episode.cut} steps that the model does not see`);
  if (episode.skipped > 0) warnings.push(`${episode.skipped} readings were skipped for unknown texts`);
  if (Array.from(raw).some((p) => !Number.isFinite(p)))
    warnings.push('a probability is not finite: a reading was NaN or infinite');
  if (!calibration?.some((c) => c !== null)) warnings.push('probabilities are not calibrated');
  const all = context.labelNames.map((_, c) => calibration?.[c] ?? null);
  const fitted = calibrateRows(raw, all, exclusive);
  const known = (c: number): boolean => all[c] !== null || (exclusive && fitted !== raw);
  return {
    format: 'hpformer-prediction',
    version: 1,
    id: episode.id,
    time: time.toISOString(),
    task: context.task,
    labels: context.labelNames.map((name, c) => ({
      name,
      raw: raw[c]!,
      calibrated: known(c) ? fitted[c]! : null,
    })),
    observed: episode.observed ?? null,
    steps: episode.bins,
    lastReadingAge: episode.lastReadingAge,
    skipped: episode.skipped,
    model: context.modelHash,
    preprocessing: context.preprocessingHash,
    device: context.device,
    warnings,
    ...(includeFeatures ? { features: Array.from(episode.features) } : {}),
  };
}

/** Appends records to a JSON-lines file; each one is in the file when its `write` resolves. */
export class RecordWriter {
  private readonly file: TextWriter;

  /** @throws HPformerError `ERR_HPFORMER_TYPE` for a file that is no text. */
  constructor(file: string) {
    checkType('RecordWriter: file', file, 'path');
    this.file = new TextWriter(file, 'a');
  }

  /** @throws HPformerError `ERR_HPFORMER_FILE`, `ERR_HPFORMER_TYPE` for a record that is no object. */
  async write(record: PredictionRecord): Promise<void> {
    checkType('RecordWriter: record', record, 'object');
    await this.file.write(`${jsonText('RecordWriter: record', record)}\n`, true);
  }

  /** @throws HPformerError `ERR_HPFORMER_FILE`. */
  end(): Promise<void> {
    return this.file.end();
  }
}
