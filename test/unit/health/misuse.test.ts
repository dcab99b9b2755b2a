/**
 * Every function and class of `hpformer/health`, called wrongly in every place: each argument, and each field inside it, becomes
 * something else in turn. Whatever comes of it is a result or an HPformerError, never a TypeError of the language.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import * as health from '../../../src/data/health';
import { errorCodes, HPformerError } from '../../../src/errors';
import {
  type Any,
  bundle,
  Calibration,
  config,
  content,
  context,
  DropReport,
  EpisodePreparer,
  episode,
  episodeFromText,
  explainable,
  explanation,
  file,
  folder,
  input,
  isotonic,
  labelRows,
  list,
  mask,
  model,
  Normalizer,
  NormalizerFitter,
  normalizer,
  one,
  places,
  platt,
  prepare,
  ReadingList,
  RecordWriter,
  readings,
  ready,
  replaced,
  report,
  results,
  rows,
  samples,
  statistic,
  task,
  text,
  three,
  wrongValues,
} from './arguments';

beforeAll(() => health.prepareArrays({ ...prepare, out: ready } as Any));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Wrong = [args: unknown[], code: string];
interface Case {
  run: (...args: Any[]) => unknown;
  args: unknown[];
  wrong: Wrong[];
}

/** What is called, with arguments that are right, and calls that must fail, with the code they fail with. */
function call(run: Case['run'], args: unknown[], ...wrong: Wrong[]): Case {
  return { run, args, wrong };
}

/** By export, with what of it is called after the dot. A new export without an entry fails the first test. */
const cases: Record<string, Case> = {
  'DropReport.add': call(
    (...a) => new DropReport().add(...a),
    ['reason', 'place', 1],
    [[], 'TYPE'],
    [['a', 'b', -1], 'RANGE'],
  ),
  'EpisodePreparer.new': call(
    (...a) => new EpisodePreparer(...a),
    [{ task, normalizer, bins: { step: 1, fill: 'next', start: 'zero', masks: true }, unknown: 'skip' }],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ task, normalizer: {} }], 'TYPE'],
    [[{ task: { ...task, steps: 0 } }], 'RANGE'],
  ),
  'EpisodePreparer.bin': call(
    (...a) => new EpisodePreparer({ task }).bin(...a),
    [input, 48],
    [[], 'TYPE'],
    [[input, Number.NaN], 'RANGE'],
  ),
  'EpisodePreparer.prepare': call(
    (...a) => new EpisodePreparer({ task, normalizer }).prepare(...a),
    [{ id: 'a', file: 'a', open: () => new ReadingList(readings, 'a') }, 48, new Float32Array(48 * 76)],
    [[], 'TYPE'],
    [[{ open: () => ({}) }], 'TYPE'],
    [[input, 48, new Float32Array(4)], 'SHAPE'],
  ),
  'ReadingList.new': call(
    (...a) => new ReadingList(...a),
    [readings, 'f'],
    [[], 'TYPE'],
    [[[null], 'f'], 'INPUT'],
    [[[{ hours: 1, variable: 99, value: 1 }], 'f'], 'INPUT'],
  ),
  'ReadingList.read': call(
    (...a) => new ReadingList(readings, 'f').read(...a),
    [0, () => undefined],
    [[7, () => undefined], 'RANGE'],
    [[0], 'TYPE'],
  ),
  'ReadingList.place': call((...a) => new ReadingList(readings, 'f').place(...a), [0]),
  episodeFromBytes: call(
    (...a) => (health as Any).episodeFromBytes(...a).open('error'),
    ['a', 'a', Buffer.from(text)],
    [[], 'TYPE'],
    [['a', 'a', text], 'TYPE'],
  ),
  episodeFromText: call(
    (...a) => episodeFromText(...a).open('error'),
    ['a', 'a', text],
    [[], 'TYPE'],
    [['a', 'a', 7], 'INPUT'],
  ),
  'episodeFromBytes.read': call(
    (...a) =>
      (health as Any)
        .episodeFromBytes('a', 'a', Buffer.from(text))
        .open('error')
        .read(...a),
    [0, () => undefined],
    [[7, () => undefined], 'RANGE'],
    [[0], 'TYPE'],
  ),
  'episodeFromText.read': call(
    (...a) => input.open('error').read(...a),
    [0, () => undefined],
    [[7, () => undefined], 'RANGE'],
    [[0], 'TYPE'],
  ),
  'episodeFromBytes.place': call(
    (...a) =>
      (health as Any)
        .episodeFromBytes('a', 'a', Buffer.from(text))
        .open('error')
        .place(...a),
    [0],
    [[7], 'RANGE'],
  ),
  healthFeatures: call(
    health.healthFeatures,
    [content],
    [[], 'TYPE'],
    [[{ ...content, task: 'x' }], 'RANGE'],
    [[{ ...content, normalizer: {} }], 'TYPE'],
    [[{ ...content, calibration: [7] }], 'TYPE'],
    [[{ ...content, steps: 0 }], 'RANGE'],
  ),
  preprocessingHash: call(
    health.preprocessingHash,
    [bundle.features],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...(bundle.features as object), columns: [1n] }], 'TYPE'],
  ),
  readHealthPreprocessing: call(
    health.readHealthPreprocessing,
    [bundle, config],
    [[], 'TYPE'],
    [[bundle], 'TYPE'],
    [[{ ...bundle, features: null }, config], 'TYPE'],
    [[{ ...bundle, labels: 7 }, config], 'TYPE'],
  ),
  writeHealthBundle: call(
    health.writeHealthBundle,
    [model, content],
    [[], 'TYPE'],
    [[model], 'TYPE'],
    [[model, { ...content, name: 7 }], 'CHECKPOINT'],
    [[new Uint8Array(3), content], 'FILE'],
    [[model, { ...content, provenance: { a: 1n } }], 'TYPE'],
  ),
  'Calibration.new': call((...a) => new Calibration(...a), [isotonic], [[], 'INPUT']),
  'Calibration.fit': call(
    Calibration.fit,
    ['platt', [0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9]],
    [[], 'TYPE'],
    [['x', [0, 1], [0.1, 0.2]], 'INPUT'],
    [['platt', [null, 1], [0.1, 0.2]], 'INPUT'],
  ),
  'Calibration.fromJSON': call(Calibration.fromJSON, [isotonic], [[], 'INPUT']),
  'Calibration.probability': call((...a) => platt.probability(...a), [0.5], [[], 'TYPE'], [['0.5'], 'TYPE']),
  'Calibration.apply': call((...a) => platt.apply(...a), [[0.5, 0.1]], [[], 'TYPE'], [[['a']], 'TYPE']),
  reliability: call(
    health.reliability,
    [[0, 1], [0.1, 0.7], { bins: 10, strategy: 'width' }],
    [[], 'TYPE'],
    [[[0, 1], [0.1, 0.7], null], 'TYPE'],
    [
      [
        [0, 1],
        [0.1, 7],
      ],
      'INPUT',
    ],
  ),
  discretize: call(
    health.discretize,
    [text, { step: 1, fill: 'previous', start: 'zero', masks: true, end: 48, unknown: 'skip', file: 'f' }],
    [[], 'INPUT'],
    [[text, null], 'RANGE'],
    [[text, { fill: null }], 'RANGE'],
    [[text, { start: null }], 'RANGE'],
    [[text, { step: '1' }], 'RANGE'],
  ),
  inputFiles: call(health.inputFiles, [[file]], [[], 'TYPE'], [[file], 'TYPE'], [[[join(folder, 'none')]], 'FILE']),
  openEpisodes: call(
    health.openEpisodes,
    [[file], { drops: new DropReport(), lenient: true }],
    [[], 'TYPE'],
    [[[file]], 'TYPE'],
    [[[file], {}], 'TYPE'],
  ),
  explainEpisode: call(
    health.explainEpisode,
    [explainable(results), episode, { task, step: 1, at: 47, perturb: 'none', calibration: [platt] }],
    [[], 'TYPE'],
    [[explainable(results)], 'TYPE'],
    [[explainable(results), episode], 'TYPE'],
    [[explainable(results), episode, { task, perturb: 'x' }], 'RANGE'],
    [[explainable(results), episode, { task, at: 48 }], 'RANGE'],
    [[explainable(results), { ...episode, features: new Float32Array(5) }, { task }], 'SHAPE'],
    [[explainable(undefined), episode, { task }], 'TYPE'],
    [[{ config: {}, run: () => results }, episode, { task }], 'CONFIG'],
  ),
  'explainEpisode.results': call(
    (r) => health.explainEpisode(explainable(r) as Any, episode as Any, { task, perturb: 'none' }),
    [results],
  ),
  explanationCsv: call(
    health.explanationCsv,
    [explanation],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...explanation, spans: [] }], 'INPUT'],
  ),
  explanationSvg: call(
    health.explanationSvg,
    [explanation],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...explanation, probabilities: [] }], 'INPUT'],
  ),
  extractSubject: call(
    health.extractSubject,
    [
      {
        events: 'hadm_id,stay_id,charttime,itemid,value,valueuom\n',
        stays: 'subject_id,hadm_id,stay_id,intime,outtime,los,deathtime,ethnicity,gender,anchor_age,mortality\n',
        diagnoses: 'icd_code,stay_id\n',
        compat: 'corrected',
      },
    ],
    [[], 'TYPE'],
    [[{}], 'INPUT'],
  ),
  decompensationLabels: call(
    health.decompensationLabels,
    [samples, { steps: 10, compat: 'corrected' }],
    [[], 'INPUT'],
    [[[{ hours: 0, label: 0 }]], 'INPUT'],
    [[samples, 7], 'TYPE'],
    [[samples, { compat: 'x' }], 'RANGE'],
  ),
  lengthOfStayLabels: call(
    health.lengthOfStayLabels,
    [samples, { steps: 10, compat: 'corrected' }],
    [[], 'INPUT'],
    [[[{ hours: 0, label: 3 }]], 'INPUT'],
    [[samples, { steps: 0 }], 'RANGE'],
  ),
  lengthOfStayClass: call(health.lengthOfStayClass, [30], [[], 'TYPE'], [[Number.NaN], 'RANGE']),
  readListFile: call(
    health.readListFile,
    ['stay,y_true\na,1\n', 'list.csv'],
    [[], 'TYPE'],
    [[7, 'list.csv'], 'INPUT'],
    [['a\n', 'list.csv'], 'INPUT'],
  ),
  inHospitalMortalityLoss: call(
    health.inHospitalMortalityLoss,
    [one, one],
    [[], 'TYPE'],
    [[[1], [0.5]], 'TYPE'],
    [[one, three], 'SHAPE'],
    [[{ data: new BigInt64Array(2), dims: [1, 2] }, one], 'TYPE'],
  ),
  decompensationLoss: call(
    health.decompensationLoss,
    [three, three, mask],
    [[], 'TYPE'],
    [[[1], [0.5], [1]], 'TYPE'],
    [[three, three], 'TYPE'],
    [[three, three, one], 'SHAPE'],
  ),
  lengthOfStayLoss: call(
    health.lengthOfStayLoss,
    [three, three, mask, 'published'],
    [[], 'TYPE'],
    [[[1], [0.5], [1]], 'TYPE'],
    [[three, three, mask, 'x'], 'RANGE'],
  ),
  'metrics.binary': call(
    health.metrics.binary,
    [
      [0, 1],
      [0.1, 0.7],
    ],
    [[], 'TYPE'],
    [[[0, 1], [0.1]], 'INPUT'],
    [[{ length: -1 }, []], 'TYPE'],
  ),
  'metrics.multiclass': call(
    health.metrics.multiclass,
    [
      [0, 1],
      [
        [0.1, 0.9],
        [0.4, 0.6],
      ],
    ],
    [[], 'TYPE'],
    [[[0, 1], { dims: [2, 2] }], 'TYPE'],
    [
      [
        [0, 1],
        [null, null],
      ],
      'INPUT',
    ],
  ),
  'metrics.multiclass of a tensor': call(health.metrics.multiclass, [
    [0, 1],
    { data: [0.1, 0.9, 0.4, 0.6], dims: [2, 2] },
  ]),
  'metrics.bootstrap': call(
    health.metrics.bootstrap,
    [['a', 'b', 'b'], statistic, { samples: 5, level: 0.9, seed: 1 }],
    [[], 'TYPE'],
    [[3], 'TYPE'],
    [[3, statistic, null], 'TYPE'],
    [[1.5, statistic], 'RANGE'],
    [[0, statistic], 'INPUT'],
    [[3, () => null], 'TYPE'],
  ),
  'metrics.bootstrap of numbers': call((n) => health.metrics.bootstrap(n, statistic, { samples: 2 }), [3]),
  'metrics.bootstrap result': call((r) => health.metrics.bootstrap(2, () => r, { samples: 2 }), [{ mean: 0.5 }]),
  'Normalizer.new': call((...a) => new Normalizer(...a), [normalizer.toJSON()], [[], 'TYPE']),
  'Normalizer.fit': call(
    Normalizer.fit,
    [[rows], { columns: 'numeric', width: 76 }],
    [[], 'INPUT'],
    [[[rows], 7], 'TYPE'],
    [[[{ values: null }]], 'INPUT'],
    [[[rows], { width: 0 }], 'RANGE'],
  ),
  'Normalizer.fromJSON': call(
    Normalizer.fromJSON,
    [{ mean: [0, 1], scale: [1, 2], columns: 'numeric', names: ['a', 'b->c'], width: 2, var: [1, 4], version: 1 }],
    [[], 'INPUT'],
    [[{ mean: [0], scale: [1], columns: 'numeric', names: [7] }], 'INPUT'],
  ),
  'Normalizer.apply': call(
    (...a) => normalizer.apply(...a),
    [{ values: Array.from(rows), dims: [2, 76] }],
    [[], 'INPUT'],
    [[{ values: rows, dims: 7 }], 'TYPE'],
    [[[1, 2]], 'SHAPE'],
    [[new Array(76).fill(1n)], 'TYPE'],
  ),
  'Normalizer.applyTo': call(
    (...a) => normalizer.applyTo(...a),
    [new Float64Array(152), Array.from(rows)],
    [[], 'TYPE'],
    [[new Float64Array(76)], 'TYPE'],
  ),
  'NormalizerFitter.new': call(
    (...a) => new NormalizerFitter(...a),
    [{ columns: 'numeric', width: 2, names: ['a', 'b->c'] }],
    [[7], 'TYPE'],
    [[{ names: 7 }], 'TYPE'],
    [[{ columns: 'x' }], 'RANGE'],
    [[{ columns: 'numeric', width: 2, names: [1, 2] }], 'INPUT'],
  ),
  'NormalizerFitter.add': call(
    (...a) => new NormalizerFitter({ width: 2 }).add(...a),
    [{ values: [1, 2, 3, 4], dims: [2, 2] }],
    [[], 'INPUT'],
    [[[1]], 'INPUT'],
  ),
  'NormalizerFitter.addMoments': call(
    (...a) => new NormalizerFitter({ width: 1 }).addMoments(...a),
    [new Float64Array(3), 1],
    [[], 'TYPE'],
  ),
  'NormalizerFitter.finish': call(() => {
    const fitter = new NormalizerFitter({ width: 1 });
    fitter.add([1, 2]);
    return fitter.finish();
  }, []),
  fitNormalizer: call(
    health.fitNormalizer,
    [prepare],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...prepare, inputs: 'x' }], 'TYPE'],
    [[{ ...prepare, workers: -1 }], 'RANGE'],
    [[{ ...prepare, signal: 7 }], 'TYPE'],
  ),
  prepareArrays: call(
    health.prepareArrays,
    [prepare],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...prepare, out: undefined }], 'TYPE'],
    [[{ ...prepare, task: { ...task, name: 'x' } }], 'RANGE'],
    [[{ ...prepare, bins: { fill: null } }], 'RANGE'],
    [[{ ...prepare, compat: 'x' }], 'RANGE'],
    [[{ ...prepare, normalizer: {} }], 'TYPE'],
  ),
  'prepareArrays.list': call(
    (l) => health.prepareArrays({ ...prepare, list: l } as Any),
    [list],
    [[7], 'TYPE'],
    [[file], 'INPUT'],
  ),
  readPrepared: call(
    health.readPrepared,
    [ready, health.preprocessingHash(bundle.features as Any), 2],
    [[], 'TYPE'],
    [[ready, 'x', 0], 'RANGE'],
    [[ready, 'x', 1], 'INPUT'],
    [[join(folder, 'none'), 'x', 1], 'FILE'],
  ),
  predictionRecord: call(
    health.predictionRecord,
    [episode, [0.5], context],
    [[], 'TYPE'],
    [[{}, [0.5], context], 'TYPE'],
    [[episode, [0.5, 0.5], context], 'SHAPE'],
    [[episode, [0.5]], 'TYPE'],
    [[episode, [0.5], { ...context, now: () => new Date(Number.NaN) }], 'TYPE'],
    [[episode, [0.5], { ...context, calibration: [{}] }], 'TYPE'],
  ),
  'RecordWriter.new': call(
    (...a) => void new RecordWriter(...a).end().catch(() => undefined),
    [join(folder, 'a')],
    [[], 'TYPE'],
    [['a\0b'], 'TYPE'],
  ),
  'RecordWriter.end': call(
    async (a) => new RecordWriter(a).end(),
    [join(folder, 'c')],
    [[join(folder, 'none', 'a')], 'FILE'],
  ),
  'RecordWriter.write': call(
    async (...a) => {
      const writer = new RecordWriter(join(folder, 'b.jsonl'));
      try {
        await writer.write(...a);
      } finally {
        await writer.end();
      }
    },
    [{ id: 'a' }],
    [[], 'TYPE'],
    [[{ id: 1n }], 'TYPE'],
  ),
  evaluationReport: call(
    health.evaluationReport,
    [report],
    [[], 'TYPE'],
    [[{}], 'TYPE'],
    [[{ ...report, facts: [['a']] }], 'TYPE'],
    [[{ ...report, rows: [{ name: 'a', labels: [2], scores: [0.5] }] }], 'INPUT'],
  ),
  knownRows: call(
    health.knownRows,
    [{ ids: [1, 2], groups: [1, 2], labels: [[0, undefined]], scores: [[0.1, 0.2]] }, ['died']],
    [[], 'TYPE'],
    [[{ labels: [], scores: [] }, ['died']], 'TYPE'],
    [[{ labels: [[0]], scores: [[]] }, ['died']], 'SHAPE'],
  ),
  studyCalibration: call(
    health.studyCalibration,
    [labelRows, labelRows, 'platt'],
    [[], 'TYPE'],
    [[[], labelRows, 'platt'], 'SHAPE'],
    [[labelRows, labelRows, 'x'], 'INPUT'],
  ),
  convertUnit: call(
    health.convertUnit,
    [14, 98.6, 'F'],
    [[], 'TYPE'],
    [['Temperature', 98.6, 'F'], 'TYPE'],
    [[99, 98.6, 'F'], 'RANGE'],
    [[14, '98.6', 'F'], 'TYPE'],
    [[14, 98.6, null], 'TYPE'],
  ),
  knownUnits: call(health.knownUnits, [14], [[], 'TYPE'], [['Temperature'], 'TYPE'], [[-1], 'RANGE'], [[1.5], 'RANGE']),
  columnNames: call(health.columnNames, [true], [[null], 'TYPE'], [['x'], 'TYPE']),
  synthesizeEpisode: call(
    health.synthesizeEpisode,
    [0, { hours: 3, seed: 1 }],
    [[], 'RANGE'],
    [[0, null], 'TYPE'],
    [[0, { hours: 'x' }], 'RANGE'],
  ),
};

/** Exports that are data. */
const constants = [
  'attentionNotice',
  'episodeHeader',
  'healthSchemaVersion',
  'healthTasks',
  'healthVariables',
  'loincVariables',
];

/** Runs a call to its end: promises are awaited, generators drained. `later`: it gave one; `sync`: it threw before it gave anything. */
async function outcome(run: Case['run'], args: unknown[]): Promise<{ error?: unknown; sync: boolean; later: boolean }> {
  let given: Any;
  try {
    given = run(...args);
  } catch (error) {
    return { error, sync: true, later: false };
  }
  const generator = typeof given?.[Symbol.asyncIterator] === 'function';
  const later = generator || typeof given?.then === 'function';
  try {
    if (generator) while (!(await given.next()).done);
    await given;
    return { sync: false, later };
  } catch (error) {
    return { error, sync: false, later };
  }
}

function isOurs(error: unknown): boolean {
  return error instanceof HPformerError && Object.hasOwn(errorCodes, error.code) && error.message.length > 10;
}

test('every export has a case, or is data', () => {
  const called = new Set(Object.keys(cases).map((name) => name.split('.')[0]));
  expect([...called, ...constants].sort()).toEqual(Object.keys(health).sort());
});

describe.each(Object.entries(cases))('%s', (_, { run, args, wrong }) => {
  let later = false;
  test('right arguments are no mistake', async () => {
    const right = await outcome(run, args);
    expect(right.error).toBeUndefined();
    later = right.later;
  });

  test('anything in the place of anything is a result or an error with a code', async () => {
    const raw: string[] = [];
    const look = async (given: unknown[], what: string) => {
      const { error } = await outcome(run, given);
      if (error !== undefined && !isOurs(error)) raw.push(`${what}: ${(error as Error)?.stack ?? String(error)}`);
    };
    for (let n = 0; n < args.length; n++) await look(args.slice(0, n), `${n} arguments`);
    for (const place of places(args)) {
      if (place.length === 0) continue;
      for (const [w, value] of wrongValues.entries()) {
        await look(replaced(args, place, value) as unknown[], `${place.join('.')} as wrong value ${w}`);
      }
    }
    expect(raw).toEqual([]);
  });

  if (wrong.length === 0) return;
  test.each(wrong.map(([given, code], i) => [i, given, code] as const))('wrong call %i', async (_i, given, code) => {
    const { error, sync } = await outcome(run, given);
    expect(error).toBeInstanceOf(HPformerError);
    expect((error as HPformerError).code).toBe(`ERR_HPFORMER_${code}`);
    // What gives a promise or a generator rejects; the others throw.
    expect(sync).toBe(!later);
  });
});
