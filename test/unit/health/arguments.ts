/** Arguments that every function of `hpformer/health` takes as they are: what misuse.test.ts spoils, place by place. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { presets } from '../../../src/config/presets';
import { readBundle } from '../../../src/data/bundle';
import * as health from '../../../src/data/health';

// biome-ignore lint/suspicious/noExplicitAny: wrong types are what this file is about
export type Any = any;
export const {
  Calibration,
  DropReport,
  EpisodePreparer,
  episodeFromText,
  healthTasks,
  Normalizer,
  NormalizerFitter,
  ReadingList,
  RecordWriter,
} = health as Any;

/** A folder of its own; whoever imports this takes it away. */
export const folder = mkdtempSync(join(tmpdir(), 'hpformer-misuse-'));

export const text = 'Hours,Heart Rate,pH\n0.5,80,7.4\n1.5,90,\n';
export const file = join(folder, '1_episode1_timeseries.csv');
export const list = join(folder, 'listfile.csv');
writeFileSync(file, text);
writeFileSync(list, 'stay,y_true\n1_episode1_timeseries.csv,1\n');
export const task = healthTasks['in-hospital-mortality'];
export const input = episodeFromText('a', 'a.csv', text);
export const rows = Float64Array.from({ length: 152 }, (_, i) => i);
export const normalizer = Normalizer.fit([rows]);
export const platt = Calibration.fit('platt', [0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9]);
export const isotonic = { method: 'isotonic', scores: [0.1, 0.5], probabilities: [0.2, 0.7] };
export const config = presets.mortality({ hidden: 16, layers: 1 });
export const content = {
  name: 'x',
  task: task.name,
  normalizer,
  bins: { step: 1, fill: 'previous', start: 'zero', masks: true },
  steps: 48,
  calibration: [null],
  labels: ['died'],
  provenance: { data: 'made up' },
};
export const model = serializeCheckpoint(config, initialWeights(config, 1));
export const bundle = readBundle(health.writeHealthBundle(model, content as Any))!;
export const episode = { ...new EpisodePreparer({ task, normalizer }).prepare(input) };
export const tensor = (count: number, dims: number[]) => ({ data: new Array(count).fill(0.5), dims });
export const results = {
  probabilities: tensor(1, [1, 1]),
  attention: tensor(32, [1, 1, 8, 4]),
  intraAttention: tensor(48, [1, 48]),
};
export const explainable = (answer: unknown) => ({ config, run: async () => answer });
export const explanation = {
  id: 'a',
  notice: health.attentionNotice,
  probabilities: [0.5],
  spans: [
    { from: 0, to: 12 },
    { from: 12, to: 24 },
  ],
  hour: 24,
  attention: [[[0.5, 0.5]]],
  meanAttention: [0.5, 0.5],
  hours: [{ hour: 1, span: 1, weight: 1 }],
  perturbations: [{ kind: 'variable', name: 'pH', probabilities: [0.4], change: [-0.1] }],
};
export const context = {
  task: task.name,
  labelNames: ['died'],
  modelHash: 'm',
  preprocessingHash: 'p',
  device: 'cpu',
  calibration: [platt],
  leastObserved: 0.1,
  mostAge: 6,
  includeFeatures: true,
  now: () => new Date(0),
};
export const labelRows = [{ name: 'died', labels: [0, 1, 1, 0], scores: [0.1, 0.7, 0.4, 0.5] }];
export const figure = { value: 0.5, low: 0.4, high: 0.6 };
export const report = {
  title: 't',
  facts: [['model', 'x']],
  evaluations: [
    {
      name: 'died',
      rows: 4,
      events: 2,
      auroc: figure,
      auprc: figure,
      minSensitivityPrecision: figure,
      logLoss: 0.5,
      brier: 0.2,
      meanProbability: 0.4,
    },
  ],
  rows: labelRows,
  studies: health.studyCalibration(labelRows as Any, labelRows as Any, 'platt'),
  further: [['kappa', '0.5']],
};
export const samples = [{ hours: 5, label: 1 }];
export const one = { data: [0, 1], dims: [1, 2] };
export const three = { data: [0, 1], dims: [1, 1, 2] };
export const mask = { data: [1], dims: [1, 1] };
export const readings = [{ hours: 1, variable: 7, value: 80 }];
export const ready = join(folder, 'ready');
export const prepare = {
  task,
  inputs: [file],
  out: join(folder, 'prepared'),
  normalizer,
  normalizerColumns: 'all',
  bins: { step: 1, masks: true },
  unknown: 'error',
  lenient: false,
  compat: 'corrected',
  workers: 0,
  signal: new AbortController().signal,
  progress: () => undefined,
};
export const statistic = () => ({ mean: 0.5 });

/** What stands in for a right argument. */
export const wrongValues: unknown[] = [
  undefined,
  null,
  0,
  -1,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  join(folder, 'some', 'text'),
  true,
  Symbol('s'),
  10n,
  [],
  [null],
  [[]],
  ['x'],
  {},
  { length: 3 },
  { values: null, data: null },
  new BigInt64Array(2),
  new Date(Number.NaN),
  () => null,
];

/** Every place inside a value that plain objects and arrays lead to; of an array its first element. */
export function* places(value: unknown, depth = 5): Generator<string[]> {
  yield [];
  if (depth === 0 || typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
  const prototype = Object.getPrototypeOf(value);
  // Instances of classes are whole things; an object of another realm is plain all the same.
  const plain = Array.isArray(value) || prototype === null || Object.getPrototypeOf(prototype) === null;
  if (!plain) return;
  for (const key of Array.isArray(value) ? Object.keys(value).slice(0, 1) : Object.keys(value)) {
    for (const rest of places((value as Any)[key], depth - 1)) yield [key, ...rest];
  }
}

/** A copy of a value with something else in one place. */
export function replaced(value: Any, [key, ...rest]: string[], by: unknown): unknown {
  if (key === undefined) return by;
  const copy = Array.isArray(value) ? [...value] : { ...value };
  copy[key] = replaced(value[key], rest, by);
  return copy;
}
