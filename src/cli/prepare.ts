import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { loadCheckpointFile } from '../checkpoint/load';
import { serializeCheckpoint } from '../checkpoint/save';
import { type BinOptions, DropReport } from '../data/health/arrays';
import { writeHealthBundle } from '../data/health/bundle';
import { Calibration } from '../data/health/calibration';
import type { Fill } from '../data/health/discretize';
import { extractSubject } from '../data/health/extract';
import { openListFile } from '../data/health/listfile';
import { Normalizer } from '../data/health/normalizer';
import { fitNormalizer, type PrepareArraysOptions, prepareArrays, preparedFiles } from '../data/health/prepare';
import { synthesizeEpisode } from '../data/health/synthetic';
import { healthTasks } from '../data/health/tasks';
import { HPformerError } from '../errors';
import { fileError, makeFolder, readJson, readText, WholeTextWriter, writeAtomically, writePlainly } from '../files';
import { describe } from '../tensor/shape';
import {
  type Command,
  choiceOption,
  type Io,
  integerOption,
  note,
  textOption,
  UsageError,
  type Values,
  write,
  writeJson,
} from './command';
import { checkOutputs, refuseInput } from './output';
import { formatDuration, Progress } from './progress';

const actions = ['arrays', 'normalizer', 'extract', 'bundle', 'synthetic'] as const;
type Action = (typeof actions)[number];

function needed(values: Values, name: string): string {
  const text = textOption(values, name);
  if (text === undefined) throw new UsageError(`expected --${name}`);
  return text;
}

/** Files that options name and the action reads. */
function namedFiles(values: Values): string[] {
  return ['list', 'normalizer', 'config', 'calibration', 'provenance'].flatMap(
    (name) => textOption(values, name) ?? [],
  );
}

/** Stays of the list, if one is given, that could be the file `out`. */
async function listedAs(out: string, values: Values): Promise<string[]> {
  const list = textOption(values, 'list');
  if (list === undefined) return [];
  const files = (await openListFile(list)).map(({ file }) => file);
  return files.filter((file) => path.basename(file) === path.basename(out));
}

/** The JSON of a file that an option names, if given. @throws HPformerError `ERR_HPFORMER_FILE`, also for what does not `fit`. */
async function optionalJson<T>(
  values: Values,
  name: string,
  fits: (json: unknown) => json is T,
  expected: string,
): Promise<T | undefined> {
  const file = textOption(values, name);
  if (file === undefined) return undefined;
  const json = await readJson(file);
  if (fits(json)) return json;
  throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected ${expected}, got ${describe(json)}`);
}

const isRecord = (json: unknown): json is Record<string, unknown> =>
  typeof json === 'object' && json !== null && !Array.isArray(json);

/** The calibrations that an option names. */
async function readCalibrations(values: Values): Promise<(Calibration | null)[] | undefined> {
  const expected = 'a list with a calibration or null for each label';
  const list = await optionalJson(values, 'calibration', (json): json is unknown[] => Array.isArray(json), expected);
  return list?.map((one) => (one === null ? null : Calibration.fromJSON(one)));
}

function numberOption(values: Values, name: string, least: number, most: number): number | undefined {
  const text = textOption(values, name);
  if (text === undefined) return undefined;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= least && value <= most)) {
    const expected = least < 1 ? 'a positive number' : `a number from ${least} to ${most}`;
    throw new UsageError(`--${name}: expected ${expected}, got "${text}"`);
  }
  return value;
}

const compats = ['published', 'corrected'] as const;

/** Options that each action reads, besides `out` and `json`. */
const binNames = ['step', 'fill', 'start', 'no-masks'];
const episodeNames = ['task', 'list', 'columns', 'steps', ...binNames, 'compat', 'lenient', 'workers'];
const bundleNames = ['config', 'calibration', 'labels', 'name', 'provenance'];
const read: Readonly<Record<Action, readonly string[]>> = {
  arrays: [...episodeNames, 'normalizer'],
  normalizer: episodeNames,
  extract: ['compat'],
  bundle: ['task', 'normalizer', 'steps', ...binNames, ...bundleNames],
  synthetic: ['count', 'seed', 'hours'],
};

/** An option that an action would not read is a mistake. @throws UsageError. */
function refuseStray(action: Action, values: Values): void {
  const stray = Object.keys(values).find((name) => !['out', 'json', ...read[action]].includes(name));
  if (stray === undefined) return;
  const readers = actions.filter((name) => read[name].includes(stray));
  throw new UsageError(`--${stray}: expected prepare ${readers.join(' or ')} with it, got ${action}`);
}

/**
 * Every option with a set or range of values, whatever the action reads: said to be wrong before any file is opened.
 * @throws UsageError.
 */
function readSettings(values: Values) {
  const step = numberOption(values, 'step', Number.MIN_VALUE, Number.MAX_VALUE);
  const fill = choiceOption<Fill>(values, 'fill', ['previous', 'next', 'normal', 'zero']);
  const start = choiceOption(values, 'start', ['zero', 'relative'] as const);
  const bins: BinOptions = {
    ...(step === undefined ? {} : { step }),
    ...(fill === undefined ? {} : { fill }),
    ...(start === undefined ? {} : { start }),
    ...(values['no-masks'] ? { masks: false } : {}),
  };
  return {
    bins,
    task: choiceOption(values, 'task', Object.keys(healthTasks) as (keyof typeof healthTasks)[]),
    compat: choiceOption(values, 'compat', compats),
    columns: choiceOption(values, 'columns', ['all', 'numeric'] as const),
    steps: integerOption(values, 'steps', 1, 1_000_000),
    workers: integerOption(values, 'workers', 0, 64),
    count: integerOption(values, 'count', 1, 100_000_000),
    seed: integerOption(values, 'seed', 0, 0xffffffff),
    hours: numberOption(values, 'hours', 1, 10_000),
  };
}

type Settings = ReturnType<typeof readSettings>;

async function arrayOptions(inputs: string[], values: Values, settings: Settings): Promise<PrepareArraysOptions> {
  const list = textOption(values, 'list');
  if (list === undefined && inputs.length === 0) throw new UsageError('expected episode files or folders, or --list');
  if (list !== undefined && inputs.length > 0) throw new UsageError('--list: expected no other inputs with it');
  const { bins, steps, compat, columns, workers } = settings;
  const normalizer = textOption(values, 'normalizer');
  const task = healthTasks[settings.task ?? 'in-hospital-mortality'];
  return {
    task: steps === undefined ? task : { ...task, steps },
    inputs,
    out: textOption(values, 'out') ?? '',
    bins,
    unknown: values.lenient ? 'skip' : 'error',
    lenient: values.lenient === true,
    workers,
    ...(list === undefined ? {} : { list }),
    ...(columns === undefined ? {} : { normalizerColumns: columns }),
    ...(compat === undefined ? {} : { compat }),
    ...(normalizer === undefined || normalizer === 'fit'
      ? {}
      : { normalizer: Normalizer.fromJSON(await readJson(normalizer)) }),
  };
}

/** One more stay, and the share of the input files that is done. */
const counted = (progress: Progress) => (done: number, total: number) => {
  progress.read(done, total);
  progress.add(1);
};

async function arrays(inputs: string[], values: Values, settings: Settings, io: Io): Promise<void> {
  needed(values, 'out');
  const progress = new Progress(io.stderr, 'stays');
  const options = await arrayOptions(inputs, values, settings);
  for (const name of preparedFiles)
    await refuseInput('--out', path.join(options.out, name), [...inputs, ...namedFiles(values)]);
  const manifest = await prepareArrays({ ...options, progress: counted(progress) }).finally(() => progress.end());
  const { seconds } = progress.end();
  if (values.json) {
    await writeJson(io.stdout, { ...manifest, normalizer: undefined, columns: manifest.columns.length, seconds });
    return;
  }
  const left = Object.entries(manifest.dropped).map(
    ([why, { count, examples }]) => `  ${count} × ${why}: ${examples[0]}\n`,
  );
  await write(
    io.stdout,
    `${manifest.episodes} stays in ${options.out} (${formatDuration(seconds)}), preprocessing ${manifest.preprocessing.slice(0, 12)}\n` +
      (manifest.skippedReadings > 0 ? `${manifest.skippedReadings} readings skipped for unknown texts\n` : '') +
      (left.length > 0 ? `left out:\n${left.join('')}` : ''),
  );
}

async function normalizer(inputs: string[], values: Values, settings: Settings, io: Io): Promise<void> {
  const out = needed(values, 'out');
  const options = await arrayOptions(inputs, values, settings);
  await checkOutputs(
    [{ given: '--out', file: out }],
    [...inputs, ...namedFiles(values), ...(await listedAs(out, values))],
  );
  const progress = new Progress(io.stderr, 'stays');
  const drops = new DropReport();
  const fitted = await fitNormalizer({ ...options, drops, progress: counted(progress) }).finally(() => progress.end());
  await writeAtomically(out, `${JSON.stringify(fitted)}\n`);
  const { n_samples_seen, width } = fitted.toJSON();
  if (values.json) await writeJson(io.stdout, { out, rows: n_samples_seen, columns: width, dropped: drops });
  else await write(io.stdout, `normaliser of ${n_samples_seen} rows and ${width} columns: ${out}\n`);
  if (drops.total > 0) await note(io.stderr, `left out: ${drops}\n`);
}

/** Subject folders (`events.csv`, `stays.csv`, `diagnoses.csv`) of the given roots, one level deep, or the roots themselves. */
async function* subjectFolders(roots: readonly string[]): AsyncGenerator<string> {
  for (const root of roots) {
    let entries: string[];
    try {
      entries = (await readdir(root)).sort();
    } catch (cause) {
      throw fileError(root, 'read', cause);
    }
    if (entries.includes('events.csv')) yield root;
    else for (const entry of entries) if (/^\d+$/.test(entry)) yield path.join(root, entry);
  }
}

/** Folder by subject. @throws HPformerError `ERR_HPFORMER_INPUT` for a subject that is there twice: it has one folder in the output. */
async function subjectsOnce(roots: readonly string[]): Promise<Map<string, string>> {
  const folders = new Map<string, string>();
  for await (const folder of subjectFolders(roots)) {
    const subject = path.basename(path.resolve(folder));
    const other = folders.get(subject);
    if (other !== undefined) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${folder}: expected each subject once, got ${subject} in ${other} too`,
      );
    }
    folders.set(subject, folder);
  }
  if (folders.size === 0) {
    const place = roots.join(', ');
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${place}: expected a subject's events.csv, or folders of subjects, got none`,
    );
  }
  return folders;
}

async function extract(inputs: string[], values: Values, settings: Settings, io: Io): Promise<void> {
  if (inputs.length === 0) throw new UsageError('expected folders with events.csv, stays.csv and diagnoses.csv');
  const out = needed(values, 'out');
  const compat = settings.compat ?? 'corrected';
  const progress = new Progress(io.stderr, 'subjects');
  const dropped: Record<string, number> = {};
  let subjects = 0;
  let episodes = 0;
  for (const [subject, folder] of await subjectsOnce(inputs)) {
    const table = (name: string): Promise<string> => readText(path.join(folder, `${name}.csv`));
    const [events, stays, diagnoses] = await Promise.all([table('events'), table('stays'), table('diagnoses')]);
    let made: ReturnType<typeof extractSubject>;
    try {
      made = extractSubject({ events, stays, diagnoses, compat });
    } catch (error) {
      if (!(error instanceof HPformerError)) throw error;
      throw new HPformerError(error.code, `${folder}/${error.message}`, { cause: error });
    }
    const target = path.join(out, subject);
    await makeFolder(target);
    for (const [name, text] of Object.entries(made.files)) await writePlainly(path.join(target, name), text);
    for (const [reason, count] of Object.entries(made.dropped)) dropped[reason] = (dropped[reason] ?? 0) + count;
    subjects++;
    episodes += Object.keys(made.files).filter((name) => name.endsWith('_timeseries.csv')).length;
    progress.add(1);
  }
  progress.end();
  if (values.json) await writeJson(io.stdout, { subjects, episodes, dropped });
  else {
    const lines = Object.entries(dropped).map(([reason, count]) => `  ${count} × ${reason}\n`);
    await write(
      io.stdout,
      `${subjects} subjects, ${episodes} episodes in ${out}\n${lines.length > 0 ? `events left out:\n${lines.join('')}` : ''}`,
    );
  }
}

async function bundle(inputs: string[], values: Values, settings: Settings, io: Io): Promise<void> {
  if (inputs.length !== 1) throw new UsageError('expected one model file');
  const out = needed(values, 'out');
  needed(values, 'task');
  const task = healthTasks[settings.task!];
  const normalizerFile = needed(values, 'normalizer');
  await checkOutputs([{ given: '--out', file: out }], [inputs[0]!, ...namedFiles(values)]);
  const fitted = Normalizer.fromJSON(await readJson(normalizerFile));
  const json = await optionalJson(values, 'config', isRecord, 'an object');
  const checkpoint = await loadCheckpointFile(inputs[0]!, json?.config ?? json);
  const labels =
    textOption(values, 'labels')?.split(',') ??
    checkpoint.config.head.names ??
    defaultLabels(task.name, checkpoint.config.head.labels);
  const calibration = await readCalibrations(values);
  const provenance = (await optionalJson(values, 'provenance', isRecord, 'an object')) ?? {};
  const steps = settings.steps ?? checkpoint.config.segments.steps ?? undefined;
  const file = writeHealthBundle(serializeCheckpoint(checkpoint.config, checkpoint.weights), {
    name: textOption(values, 'name') ?? path.basename(out).replace(/\.safetensors$/, ''),
    task: task.name,
    normalizer: fitted,
    bins: settings.bins,
    labels,
    ...(steps === undefined ? {} : { steps }),
    ...(calibration ? { calibration } : {}),
    provenance,
  });
  await writeAtomically(out, file);
  if (values.json) await writeJson(io.stdout, { out, bytes: file.length, task: task.name, labels });
  else await write(io.stdout, `bundle of ${file.length} bytes for ${task.name}: ${out}\n`);
}

function defaultLabels(task: string, count: number): string[] {
  return count === 1 ? [task] : Array.from({ length: count }, (_, i) => String(i));
}

/** Stays a folder holds: a list with a million names is slow on most file systems. */
const shard = 1000;

async function synthetic(inputs: string[], values: Values, settings: Settings, io: Io): Promise<void> {
  if (inputs.length > 0) throw new UsageError('synthetic: expected no inputs');
  const out = needed(values, 'out');
  const { count = 1000, seed = 1, hours = 48 } = settings;
  const progress = new Progress(io.stderr, 'stays');
  await makeFolder(out);
  const list = new WholeTextWriter(path.join(out, 'listfile.csv'));
  try {
    await list.write('stay,y_true\n');
    for (let i = 0; i < count; i++) {
      const folder = String(Math.floor(i / shard)).padStart(4, '0');
      if (i % shard === 0) await makeFolder(path.join(out, folder));
      const { id, text, died } = synthesizeEpisode(i, { seed, hours });
      const name = `${folder}/${id}_timeseries.csv`;
      await writePlainly(path.join(out, name), text);
      await list.write(`${name},${died}\n`);
      progress.add(1);
    }
    await list.end();
  } catch (error) {
    await list.abandon();
    throw error;
  }
  const { seconds } = progress.end();
  if (values.json) await writeJson(io.stdout, { out, count, seed, hours, seconds });
  else await write(io.stdout, `${count} made-up stays in ${out} (${formatDuration(seconds)})\n`);
}

const run: Record<Action, (inputs: string[], values: Values, settings: Settings, io: Io) => Promise<void>> = {
  arrays,
  normalizer,
  extract,
  bundle,
  synthetic,
};

/** `hpformer prepare`: the health pipeline from raw events to arrays and bundles. */
export const prepare: Command = {
  summary: 'Health data: raw events to episodes, episodes to arrays, normalisers, bundles, made-up stays.',
  usage: `<${actions.join('|')}> [inputs]... [options]`,
  positionals: { least: 1, most: Number.MAX_SAFE_INTEGER },
  options: {
    out: {
      type: 'string',
      short: 'o',
      value: 'path',
      help: 'folder (arrays, extract, synthetic) or file (normalizer, bundle)',
    },
    task: {
      type: 'string',
      value: 'name',
      help: `${Object.keys(healthTasks).join(', ')} (arrays: default the first)`,
    },
    list: { type: 'string', value: 'file', help: 'list file of a task instead of inputs: adds labels and ends' },
    normalizer: { type: 'string', value: 'file', help: 'fitted normaliser (arrays: default fit, from the inputs)' },
    columns: { type: 'string', value: 'name', help: 'what is fitted: all (default, as the authors) or numeric' },
    steps: { type: 'string', value: 'n', help: "steps of the model's input (default: the task's)" },
    step: { type: 'string', value: 'hours', help: 'bin width (default 1)' },
    fill: { type: 'string', value: 'name', help: 'previous (default), next, normal, zero' },
    start: { type: 'string', value: 'name', help: 'zero (default) or relative' },
    'no-masks': { type: 'boolean', help: 'leave the 17 mask columns out' },
    compat: { type: 'string', value: 'name', help: 'published (defects included) or corrected (default)' },
    lenient: { type: 'boolean', help: 'count malformed stays and unknown texts instead of stopping' },
    workers: {
      type: 'string',
      value: 'n',
      help: 'threads that read episode files (default: the cores it may use, 8 at most)',
    },
    config: { type: 'string', value: 'file', help: 'bundle: configuration of a model file that carries none' },
    calibration: { type: 'string', value: 'file', help: 'bundle: calibrations, as evaluate --calibrate saves them' },
    labels: { type: 'string', value: 'a,b,…', help: 'bundle: names of the outputs (default: their numbers)' },
    name: { type: 'string', value: 'name', help: 'bundle: its name' },
    provenance: { type: 'string', value: 'file', help: 'bundle: JSON with origin, licence, intended use, limits' },
    count: { type: 'string', value: 'n', help: 'synthetic: how many stays (default 1000)' },
    seed: { type: 'string', value: 'n', help: 'synthetic: seed (default 1)' },
    hours: { type: 'string', value: 'n', help: 'synthetic: hours of each stay (default 48)' },
    json: { type: 'boolean', help: 'a summary as JSON' },
  },
  notes: [
    'arrays      episode files, folders, .jsonl, .ndjson, FHIR .json, .parquet, .arrow to features.npy and companions',
    'normalizer  means and scales of the same inputs to a JSON file',
    'extract     subject folders (events.csv, stays.csv, diagnoses.csv), each subject once, to episode and list files',
    'bundle      a model file with its preprocessing, for predict and evaluate',
    'synthetic   made-up stays at the published measurement rates, for tests and speed',
    '',
    '  hpformer prepare synthetic --count 1000 --out stays',
    '  hpformer prepare normalizer stays --out normalizer.json',
    '  hpformer prepare bundle model.safetensors --task in-hospital-mortality --normalizer normalizer.json -o b.safetensors',
    '  hpformer predict b.safetensors stays --out scores.csv',
  ],
  async run([action, ...inputs], values, io) {
    if (!actions.includes(action as Action)) {
      throw new UsageError(`expected ${actions.join(', ')}, got "${action}"`);
    }
    const settings = readSettings(values);
    refuseStray(action as Action, values);
    await run[action as Action](inputs, values, settings, io);
    return 0;
  },
};
