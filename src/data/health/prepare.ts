import path from 'node:path';
import { HPformerError } from '../../errors';
import { makeFolder, WholeTextWriter, writeAtomically } from '../../files';
import { describe } from '../../tensor/shape';
import { checkFields, checkType } from '../check';
import { type BinOptions, type BinSettings, checkNormalizer, countCut, DropReport, findTask } from './arrays';
import { healthFeatures, preprocessingHash } from './bundle';
import { type CrewJob, type CrewOptions, checkCrewOptions, runStage } from './crew';
import { checkDiscretizeOptions } from './discretize';
import { countFiles, episodeJobs, noStays } from './episodes';
import { type Compat, checkCompat, decompensationLabels, lengthOfStayLabels } from './labels';
import { type ListedStay, openListFile } from './listfile';
import { type Normalizer, NormalizerFitter, type NormalizerJSON } from './normalizer';
import { type NpyType, NpyWriter } from './npy';
import { columnNames } from './schema';
import type { StageKind, StageOptions } from './stages';
import { checkLabelSteps, checkTask, checkWindow, type HealthTask, healthTasks } from './tasks';

/** What {@link prepareArrays} does. */
export interface PrepareArraysOptions extends CrewOptions {
  task: HealthTask;
  /** Episode files, folders and the other formats; ignored where `list` is given. */
  inputs: readonly string[];
  /** Folder that the arrays are written to. */
  out: string;
  /** A list file: its stays in order, with labels and, for hourly tasks, the last hour of each. */
  list?: string | undefined;
  /** A fitted normaliser; `fit`: fitted on these stays first (a second pass over the files); default `fit`. */
  normalizer?: Normalizer | 'fit' | undefined;
  normalizerColumns?: 'all' | 'numeric' | undefined;
  bins?: BinOptions | undefined;
  unknown?: 'error' | 'skip' | undefined;
  /** Malformed stays are counted instead of ending the run. */
  lenient?: boolean | undefined;
  compat?: Compat | undefined;
  /** Counts what {@link fitNormalizer} leaves out; what arrays leave out is in their manifest. */
  drops?: DropReport | undefined;
  /** Called after each stay, with the number of input files done and of all. */
  progress?: ((files: number, allFiles: number) => void) | undefined;
}

/** What was prepared: written as `prepare.json` beside the arrays. */
export interface PreparedManifest {
  format: 'hpformer-prepared';
  version: 1;
  task: string;
  steps: number;
  columns: string[];
  bins: BinSettings;
  normalizer: NormalizerJSON;
  /** SHA-256 of the preprocessing, to compare with a bundle's. */
  preprocessing: string;
  episodes: number;
  labelled: boolean;
  /** Readings skipped for unknown texts. */
  skippedReadings: number;
  dropped: Record<string, { count: number; examples: string[] }>;
}

/** Every file that {@link prepareArrays} may write in its folder. */
export const preparedFiles = [
  'features.npy',
  'bins.npy',
  'step.npy',
  'labels.npy',
  'valid.npy',
  'ids.txt',
  'prepare.json',
];

/** Checks everything that can be checked before any file is read. */
function checkPrepare(where: string, options: PrepareArraysOptions): void {
  checkFields(where, options, {
    task: 'object',
    inputs: 'any',
    list: 'string?',
    bins: 'object?',
    lenient: 'boolean?',
    drops: 'object?',
    progress: 'function?',
  });
  const { task, list, normalizer = 'fit', bins, unknown, compat } = options;
  checkTask(`${where}: task`, task);
  findTask(healthTasks, task.name);
  if (list === undefined) checkType(`${where}: inputs`, options.inputs, 'strings');
  if (normalizer !== 'fit') checkNormalizer(`${where}: normalizer`, normalizer);
  const { step } = checkDiscretizeOptions({ ...bins, ...(unknown === undefined ? {} : { unknown }) });
  checkWindow(where, task, step);
  if (list !== undefined) checkLabelSteps(where, task, step);
  checkType(`${where}: drops: add`, options.drops?.add, 'function?');
  checkCompat(where, compat);
  checkCrewOptions(options);
}

/** Runs `work`; with `lenient` a malformed stay is counted and undefined returned. */
function attempt<T>(lenient: boolean, drops: DropReport, file: string, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!lenient || !(error instanceof HPformerError) || error.code !== 'ERR_HPFORMER_INPUT') throw error;
    drops.add('malformed stay', `${file}: ${error.message}`);
    return undefined;
  }
}

interface ListedJob extends CrewJob {
  stay?: ListedStay;
}

async function* jobsOf(options: PrepareArraysOptions, drops: DropReport): AsyncGenerator<ListedJob> {
  const { list, task, lenient = false } = options;
  if (list === undefined) {
    yield* episodeJobs(options.inputs, { drops, lenient });
    return;
  }
  for (const stay of await openListFile(list)) {
    const last = stay.lines.reduce((most, line) => Math.max(most, line.hours ?? 0), 0);
    const end = task.end === null && last > 0 ? last : undefined;
    yield { id: stay.id, file: stay.file, end, stay };
  }
}

/** Tells `options.progress` of each stay, kept or not. */
async function progressOf(options: PrepareArraysOptions): Promise<(file: string) => void> {
  const { progress, list } = options;
  if (!progress) return () => undefined;
  const all = list === undefined ? await countFiles(options.inputs) : (await openListFile(list)).length;
  let files = 0;
  let latest = '';
  return (file) => {
    if (file !== latest) files++;
    latest = file;
    progress(files, all);
  };
}

function stageOf(options: PrepareArraysOptions, kind: StageKind, normalizer: Normalizer | undefined): StageOptions {
  const { task, bins = {}, unknown = 'error', lenient = false } = options;
  return { kind, task, bins, unknown, lenient, normalizer: normalizer?.toJSON() };
}

/** Counts what became of a stay without a result. */
function dropped(drops: DropReport, file: string, result: { kind: 'empty' } | { kind: 'malformed'; message: string }) {
  if (result.kind === 'empty') drops.add('no reading in the window of the task', file);
  else drops.add('malformed stay', `${file}: ${result.message}`);
}

/**
 * Fits a normaliser over all bins of all stays before padding, stay by stay.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` or `ERR_HPFORMER_RANGE` for options, `ERR_HPFORMER_FILE`, `ERR_HPFORMER_INPUT` for malformed
 * stays.
 */
export async function fitNormalizer(options: PrepareArraysOptions): Promise<Normalizer> {
  checkPrepare('fitNormalizer', options);
  const { bins = {}, normalizerColumns = 'all' } = options;
  const fitter = new NormalizerFitter({ columns: normalizerColumns, width: columnNames(bins.masks ?? true).length });
  const drops = options.drops ?? new DropReport();
  const progress = await progressOf(options);
  const stage = stageOf(options, 'moments', undefined);
  let stays = 0;
  for await (const [{ file }, result] of runStage(stage, jobsOf(options, drops), options)) {
    progress(file);
    if (result.kind === 'empty' || result.kind === 'malformed') dropped(drops, file, result);
    if (result.kind !== 'moments') continue;
    fitter.addMoments(result.moments, result.rows);
    drops.add('reading of an unknown text', file, result.skipped);
    stays++;
  }
  if (stays === 0) throw noStays(placesOf(options), drops);
  return fitter.finish();
}

/** Where stays were looked for. */
const placesOf = ({ list, inputs }: PrepareArraysOptions): readonly string[] => (list === undefined ? inputs : [list]);

/** Labels of one stay in the shape of the task: `[labels]`, or `[steps]` with which of them count. */
function labelsOf(stay: ListedStay, task: HealthTask, compat: Compat): { labels: Float32Array; valid: Uint8Array } {
  if (task.readout === 'step') {
    const labels = Float32Array.from(stay.lines[0]!.labels);
    if (stay.lines.length !== 1 || labels.length !== task.labels) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${stay.file}: expected one line with ${task.labels} labels, got ${stay.lines.length} with ${labels.length}`,
      );
    }
    return { labels, valid: new Uint8Array(0) };
  }
  const make = task.name === 'decompensation' ? decompensationLabels : lengthOfStayLabels;
  const samples = stay.lines.map(({ hours, labels }) => ({ hours: hours ?? Number.NaN, label: labels[0]! }));
  const made = make(samples, { steps: task.steps, compat });
  return { labels: Float32Array.from(made.labels), valid: made.valid };
}

/**
 * Streams stays through the published pipeline into NumPy files: `features.npy` `[N, steps, columns]` (float32), `bins.npy`, `step.npy`
 * `[N]` (int32), `ids.txt`, and with a list file `labels.npy` and, for hourly tasks, `valid.npy`; `prepare.json` says what they are.
 * Memory does not grow with the number of stays.
 *
 * @throws HPformerError as {@link fitNormalizer}.
 */
export async function prepareArrays(options: PrepareArraysOptions): Promise<PreparedManifest> {
  checkFields('prepareArrays', options, { task: 'object', inputs: 'any', out: 'string' });
  checkPrepare('prepareArrays', options);
  const { task, out, bins = {}, lenient = false, compat = 'corrected' } = options;
  const normalizer =
    options.normalizer === undefined || options.normalizer === 'fit'
      ? await fitNormalizer(options)
      : options.normalizer;
  const width = columnNames(bins.masks ?? true).length;
  await makeFolder(out);
  const labelled = options.list !== undefined;
  const perStep = labelled && task.readout === 'steps';
  const begun: NpyWriter[] = [];
  const create = async (name: string, type: NpyType, rowDims: number[]) => {
    const writer = await NpyWriter.create(path.join(out, `${name}.npy`), type, rowDims);
    begun.push(writer);
    return writer;
  };
  const ids = new WholeTextWriter(path.join(out, 'ids.txt'));
  const drops = new DropReport();
  let stays = 0;
  let episodes = 0;
  let skippedReadings = 0;
  try {
    const writers = {
      features: await create('features', 'float32', [task.steps, width]),
      bins: await create('bins', 'int32', []),
      step: await create('step', 'int32', []),
      labels: labelled ? await create('labels', 'float32', [perStep ? task.steps : task.labels]) : undefined,
      valid: perStep ? await create('valid', 'uint8', [task.steps]) : undefined,
    };
    const stage = stageOf(options, 'features', normalizer);
    const progress = await progressOf(options);
    for await (const [{ file, stay }, result] of runStage(stage, jobsOf(options, drops), options)) {
      progress(file);
      stays++;
      if (result.kind === 'empty' || result.kind === 'malformed') {
        dropped(drops, file, result);
        continue;
      }
      if (result.kind !== 'features') continue;
      const { episode } = result;
      const labels = stay && attempt(lenient, drops, file, () => labelsOf(stay, task, compat));
      if (stay && !labels) continue;
      if (/[\n\r]/.test(episode.id)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${file}: expected the name of a stay in one line, as ids.txt has them, got ${describe(episode.id)}`,
        );
      }
      await writers.features.write(episode.features, 1);
      await writers.bins.write(Int32Array.of(episode.bins), 1);
      await writers.step.write(Int32Array.of(episode.step), 1);
      if (labels) {
        await writers.labels?.write(labels.labels, 1);
        await writers.valid?.write(labels.valid, 1);
      }
      await ids.write(`${episode.id}\n`);
      countCut(drops, episode, file);
      skippedReadings += episode.skipped;
      episodes++;
    }
    if (stays === 0) throw noStays(placesOf(options), drops);
    for (const writer of begun) await writer.end();
    await ids.end();
  } catch (error) {
    for (const writer of begun) await writer.abandon();
    await ids.abandon();
    throw error;
  }
  const features = healthFeatures({
    name: 'prepared',
    task: task.name,
    steps: task.steps,
    normalizer,
    bins,
    labels: [],
    provenance: {},
  });
  const manifest: PreparedManifest = {
    format: 'hpformer-prepared',
    version: 1,
    task: task.name,
    steps: task.steps,
    columns: features.columns,
    bins: features.bins,
    normalizer: features.normalizer,
    preprocessing: preprocessingHash(features),
    episodes,
    labelled,
    skippedReadings,
    dropped: drops.toJSON(),
  };
  await writeAtomically(path.join(out, 'prepare.json'), `${JSON.stringify(manifest, null, 1)}\n`);
  return manifest;
}
