import { access, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { HPformerError } from '../../errors';
import { fileError } from '../../files';
import { Tensor } from '../../tensor/tensor';
import type { LabelledBatch, OpenSource, ScoreBatch } from '../recipes';
import { countCut, DropReport, EpisodePreparer, episodeFromBytes, type PreparedEpisode } from './arrays';
import { readHealthPreprocessing } from './bundle';
import { calibrateRows } from './calibration';
import { runStage } from './crew';
import { countFiles, episodeJobs } from './episodes';
import { readBytesSync } from './files';
import { decompensationLabels, type LabelSample, lengthOfStayLabels } from './labels';
import { type ListedStay, openListFile } from './listfile';
import { readPrepared } from './prepared';
import { predictionRecord } from './record';
import type { StageOptions } from './stages';
import { checkLabelSteps, type HealthTask } from './tasks';

/** Memory of feature batches, used again when a batch is done; shared, so that a model reads it in place instead of copying it. */
class BatchMemory {
  private readonly free: SharedArrayBuffer[] = [];

  take(bytes: number): SharedArrayBuffer {
    const buffer = this.free.pop();
    return buffer && buffer.byteLength >= bytes ? buffer : new SharedArrayBuffer(bytes);
  }

  give(buffer: SharedArrayBuffer): void {
    this.free.push(buffer);
  }
}

/**
 * Feeds of a batch of prepared stays; `valid`: the model is one over valid steps and takes lengths.
 *
 * @param buffer where the features are put; default: memory of their own.
 */
function episodeFeeds(
  episodes: readonly PreparedEpisode[],
  task: HealthTask,
  width: number,
  valid: boolean,
  buffer?: SharedArrayBuffer,
): ScoreBatch['feeds'] {
  const count = episodes.length;
  const size = task.steps * width;
  const features = buffer ? new Float32Array(buffer, 0, count * size) : new Float32Array(count * size);
  episodes.forEach((episode, i) => {
    features.set(episode.features, i * size);
  });
  const feeds: ScoreBatch['feeds'] = { features: new Tensor('float32', features, [count, task.steps, width]) };
  if (task.readout === 'step') {
    feeds.step = new Tensor(
      'int32',
      Int32Array.from(episodes, (e) => e.step),
      [count],
    );
  }
  // Models over valid steps never read the padding and give each stay the bits it has alone.
  if (valid)
    feeds.lengths = new Tensor(
      'int32',
      Int32Array.from(episodes, (e) => e.bins),
      [count],
    );
  return feeds;
}

const listNames: Readonly<Record<string, string>> = {
  train: 'train_listfile.csv',
  valid: 'val_listfile.csv',
  test: 'test_listfile.csv',
};

/** The list file of a part: the file itself where one is given, else by the published names inside the folder. */
async function findList(input: string, part: string): Promise<string> {
  if (path.basename(input).endsWith('listfile.csv')) return input;
  const whole = path.join(input, 'listfile.csv');
  const named = listNames[part];
  const file = named === undefined ? whole : path.join(input, named);
  const cause = await access(file).catch((error: unknown) => error ?? 'not there');
  if (cause === undefined) return file;
  if (part === 'test') return whole;
  throw fileError(file, 'read', cause);
}

interface LabelledRows {
  episode: PreparedEpisode;
  /** Steps of the rows, or the readout step. */
  steps: number[];
  ids: string[];
  labels: (0 | 1)[][];
  group: string;
}

function rowsOf(stay: ListedStay, episode: PreparedEpisode, task: HealthTask, file: string): LabelledRows {
  const group = stay.id.replace(/_episode\d+$/, '');
  const binary = (value: number): 0 | 1 => {
    if (value !== 0 && value !== 1) {
      throw new HPformerError('ERR_HPFORMER_INPUT', `${file}, stay ${stay.id}: expected labels 0 or 1, got ${value}`);
    }
    return value;
  };
  if (task.readout === 'step') {
    const labels = stay.lines[0]!.labels;
    if (stay.lines.length !== 1 || labels.length !== task.labels) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${file}, stay ${stay.id}: expected one line with ${task.labels} labels, got ${stay.lines.length} with ${labels.length}`,
      );
    }
    return { episode, steps: [episode.step], ids: [stay.id], labels: [labels.map(binary)], group };
  }
  const samples: LabelSample[] = stay.lines.map(({ hours, labels }) => ({ hours: hours!, label: labels[0]! }));
  const made = (task.name === 'decompensation' ? decompensationLabels : lengthOfStayLabels)(samples, {
    steps: task.steps,
  });
  const steps = Array.from(made.valid.keys()).filter((i) => made.valid[i] === 1 && i < episode.bins);
  return {
    episode,
    steps,
    ids: steps.map((s) => `${stay.id}@${s + 1}`),
    labels: steps.map((s) => {
      const value = made.labels[s]!;
      return task.labels === 1 ? [binary(value)] : Array.from({ length: task.labels }, (_, c) => (c === value ? 1 : 0));
    }),
    group,
  };
}

/** Takes the rows that are reported out of a batch's probabilities (`[B, labels]` or `[B, steps, labels]`). */
function picker(
  steps: readonly (readonly number[])[],
  task: HealthTask,
): (raw: ArrayLike<number>) => ArrayLike<number> {
  return (raw) => {
    if (task.readout === 'step') return raw;
    const { labels } = task;
    const rows = steps.reduce((sum, list) => sum + list.length, 0);
    const out = new Float64Array(rows * labels);
    let at = 0;
    steps.forEach((list, b) => {
      for (const step of list) for (let c = 0; c < labels; c++) out[at++] = raw[(b * task.steps + step) * labels + c]!;
    });
    return out;
  };
}

/** Episode files, JSON lines, FHIR, Parquet and Arrow as the source of a health bundle. */
export const healthSource: OpenSource = (bundle, config, inputs) => {
  const { task, bins, normalizer, calibration, hash } = readHealthPreprocessing(bundle, config);
  const preparer = new EpisodePreparer({ task, normalizer, bins });
  const width = preparer.columns.length;
  const drops = new DropReport();
  const stage: StageOptions = {
    kind: 'features',
    task,
    bins,
    unknown: 'error',
    lenient: false,
    normalizer: normalizer.toJSON(),
  };
  const valid = config.segments.over === 'valid';
  const exclusive = config.head.link === 'softmax';
  const calibrate = (rows: ArrayLike<number>): ArrayLike<number> => calibrateRows(rows, calibration, exclusive);
  return {
    idColumn: 'patient',
    unit: task.readout === 'steps' ? 'hours' : 'episodes',
    group: 'patients',
    drops,
    async *score({ batch, progress, workers, signal }) {
      let waiting: PreparedEpisode[] = [];
      const memory = new BatchMemory();
      const flush = (): ScoreBatch => {
        const episodes = waiting;
        waiting = [];
        // Without a list file the answer is the one at the stay's last hour.
        const pick = picker(
          episodes.map((e) => [e.step]),
          task,
        );
        const record: NonNullable<ScoreBatch['record']> = (row, raw, device, includeFeatures) =>
          predictionRecord(episodes[row]!, raw, {
            task: task.name,
            labelNames: bundle.labels,
            modelHash: bundle.hash,
            preprocessingHash: hash,
            device,
            calibration,
            exclusive,
            includeFeatures,
          });
        const buffer = memory.take(episodes.length * task.steps * width * 4);
        const feeds = episodeFeeds(episodes, task, width, valid, buffer);
        const release = () => memory.give(buffer);
        return { ids: episodes.map((e) => e.id), feeds, pick, calibrate, record, release };
      };
      const prepared: string[] = [];
      const raw: string[] = [];
      for (const input of inputs) {
        const arrays = await stat(path.join(input, 'prepare.json')).catch(() => undefined);
        (arrays ? prepared : raw).push(input);
      }
      for (const folder of prepared) {
        for await (const episodes of readPrepared(folder, hash, batch)) {
          waiting = episodes;
          yield flush();
        }
      }
      const total = progress && raw.length > 0 ? await countFiles(raw) : 0;
      let files = 0;
      let latest = '';
      for await (const [{ file }, result] of runStage(stage, episodeJobs(raw, { drops }), { workers, signal })) {
        if (result.kind === 'features') {
          waiting.push(result.episode);
          countCut(drops, result.episode, file);
        } else drops.add('no reading in the window of the task', file);
        if (file !== latest) progress?.(++files, total);
        latest = file;
        if (waiting.length >= batch) yield flush();
      }
      if (waiting.length > 0) yield flush();
    },
    partFiles(part) {
      return Promise.all(
        inputs.map(async (input) => {
          const list = await findList(input, part);
          return realpath(list).catch((cause) => {
            throw fileError(list, 'read', cause);
          });
        }),
      );
    },
    async *labelled(part, { batch, progress }) {
      checkLabelSteps(bundle.name, task, bins.step);
      for (const input of inputs) {
        const list = await findList(input, part);
        const stays = await openListFile(list);
        let waiting: LabelledRows[] = [];
        const flush = (): LabelledBatch => {
          const rows = waiting;
          waiting = [];
          return {
            ids: rows.flatMap((r) => r.ids),
            labels: rows.flatMap((r) => r.labels),
            groups: rows.flatMap((r) => r.ids.map(() => r.group)),
            feeds: episodeFeeds(
              rows.map((r) => r.episode),
              task,
              width,
              valid,
            ),
            pick: picker(
              rows.map((r) => r.steps),
              task,
            ),
            calibrate,
          };
        };
        for (const [done, stay] of stays.entries()) {
          const end = task.end ?? stay.lines.reduce((most, line) => Math.max(most, line.hours ?? 0), 0);
          const input = episodeFromBytes(stay.id, stay.file, readBytesSync(stay.file));
          const episode = preparer.prepare(input, end > 0 ? end : undefined);
          if (episode) {
            waiting.push(rowsOf(stay, episode, task, list));
            countCut(drops, episode, stay.file);
          } else drops.add('no reading in the window of the task', stay.file);
          if (waiting.length >= batch) yield flush();
          progress?.(done + 1, stays.length);
        }
        if (waiting.length > 0) yield flush();
      }
    },
  };
};
