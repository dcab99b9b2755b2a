import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { presets } from '../../../src/config/presets';
import { readBundle } from '../../../src/data/bundle';
import {
  Calibration,
  DropReport,
  EpisodePreparer,
  episodeFromText,
  type HealthTaskName,
  healthTasks,
  Normalizer,
  openEpisodes,
  prepareArrays,
  readHealthPreprocessing,
  readPrepared,
  synthesizeEpisode,
  writeHealthBundle,
} from '../../../src/data/health';
import { healthSource } from '../../../src/data/health/source';
import type { Tensor } from '../../../src/tensor/tensor';
import { fixtureJson, fixtureNpy } from './fixtures';

const fixtures = join(__dirname, '../../fixtures/health');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-health-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const golden = Normalizer.fromJSON(fixtureJson('ihm/expected/normalizer.json'));
const ids = ['10001', '10002', '10003', '10004', '10005', '10006'];

function npy(file: string): { dims: number[]; bytes: Buffer } {
  const bytes = readFileSync(file);
  const header = bytes.toString('latin1', 10, 128);
  return {
    dims: /\(([^)]*)\)/
      .exec(header)![1]!
      .split(',')
      .filter((d) => d.trim())
      .map(Number),
    bytes: bytes.subarray(128),
  };
}
const floats = (bytes: Buffer) =>
  new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));

describe('prepareArrays', () => {
  test('the golden mortality arrays, fitted in a first pass', async () => {
    const out = join(folder, 'ihm');
    const task = healthTasks['in-hospital-mortality'];
    // The fixture keeps its inputs in a folder of their own, so its list as it stands names files that are not there.
    await expect(
      prepareArrays({ task, inputs: [], list: join(fixtures, 'ihm/listfile.csv'), out, normalizer: golden }),
    ).rejects.toThrow(/10001_episode1_timeseries.csv: cannot be read/);

    mkdirSync(join(folder, 'in'));
    cpSync(join(fixtures, 'ihm/input'), join(folder, 'in'), { recursive: true });
    cpSync(join(fixtures, 'ihm/listfile.csv'), join(folder, 'in/listfile.csv'));
    const done = await prepareArrays({ task, inputs: [], list: join(folder, 'in/listfile.csv'), out });
    expect(done).toMatchObject({ episodes: 6, labelled: true, skippedReadings: 0, dropped: {} });
    const scale = fixtureJson<{ scale: number[] }>('ihm/expected/normalizer.json').scale;
    done.normalizer.scale.forEach((s, c) => {
      expect(Math.abs(s - scale[c]!)).toBeLessThanOrEqual(1e-12 + 1e-9 * scale[c]!);
    });
    const features = npy(join(out, 'features.npy'));
    expect(features.dims).toEqual([6, 48, 76]);
    const got = floats(features.bytes);
    ids.forEach((id, i) => {
      const want = fixtureNpy(`ihm/expected/${id}_normalized.npy`).data;
      let worst = 0;
      for (let k = 0; k < want.length; k++) {
        worst = Math.max(worst, Math.abs(got[i * want.length + k]! - want[k]!) / (1e-6 + 1e-6 * Math.abs(want[k]!)));
      }
      expect(worst).toBeLessThan(1);
    });
    expect(Array.from(floats(npy(join(out, 'labels.npy')).bytes))).toEqual([0, 1, 0, 1, 1, 0]);
    expect(readFileSync(join(out, 'ids.txt'), 'utf8')).toBe(ids.map((id) => `${id}_episode1\n`).join(''));
    const back = [];
    for await (const batch of readPrepared(out, done.preprocessing, 4)) back.push(...batch);
    expect(back.map((e) => [e.id, e.bins, e.step])).toEqual(ids.map((id) => [`${id}_episode1`, 48, 47]));
    expect(back[5]!.features).toEqual(got.slice(5 * 48 * 76));
    await expect(readPrepared(out, 'other', 4).next()).rejects.toThrow(
      /expected arrays made with the preprocessing other/,
    );
  });

  test('hourly tasks: labels and masks by step', async () => {
    for (const [name, task] of [
      ['dp', 'decompensation'],
      ['los', 'length-of-stay'],
    ] as const) {
      const source = join(folder, name);
      mkdirSync(source);
      cpSync(join(fixtures, name, 'input'), source, { recursive: true });
      cpSync(join(fixtures, name, 'listfile.csv'), join(source, 'listfile.csv'));
      const out = join(folder, `${name}-out`);
      const done = await prepareArrays({
        task: healthTasks[task],
        inputs: [],
        list: join(source, 'listfile.csv'),
        out,
      });
      expect(done.episodes).toBe(6);
      const order = readFileSync(join(out, 'ids.txt'), 'utf8').trim().split('\n');
      const expected = fixtureJson<{
        results: { file: string; steps: number; labels: number[]; padded_504: { mask_sum: number } }[];
      }>(`${name}/expected/expected.json`).results;
      const labels = floats(npy(join(out, 'labels.npy')).bytes);
      const valid = npy(join(out, 'valid.npy')).bytes;
      for (const result of expected) {
        const i = order.indexOf(result.file.replace('_timeseries.csv', ''));
        expect(Array.from(labels.subarray(i * 504, i * 504 + result.steps))).toEqual(result.labels);
        expect(valid.subarray(i * 504, (i + 1) * 504).reduce((a, b) => a + b, 0)).toBe(result.padded_504.mask_sum);
      }
    }
  });

  test('malformed stays end the run, or are counted', async () => {
    const bad = join(folder, 'bad');
    mkdirSync(bad);
    const good = synthesizeEpisode(0).text;
    writeFileSync(join(bad, 'a_timeseries.csv'), good);
    writeFileSync(join(bad, 'b_timeseries.csv'), good.replace(/\n([\d.]+),/, '\nx$1,'));
    writeFileSync(join(bad, 'c_timeseries.csv'), `${good.split('\n')[0]}\n60,${',,,,,,,,,,,,,,,,'}\n`);
    const options = { task: healthTasks['in-hospital-mortality'], inputs: [bad], out: join(folder, 'bad-out') };
    await expect(prepareArrays(options)).rejects.toThrow(/b_timeseries.csv line 2, column "Hours"/);
    const done = await prepareArrays({ ...options, lenient: true });
    expect(done.episodes).toBe(1);
    expect(done.dropped['malformed stay']).toMatchObject({ count: 1 });
  });
});

function bundleOf(task: HealthTaskName, extra: { calibration?: Calibration } = {}) {
  const config =
    task === 'in-hospital-mortality'
      ? presets.mortality({ hidden: 16, layers: 1 })
      : presets.lengthOfStay({ hidden: 16, layers: 1 });
  const labels = Array.from({ length: config.head.labels }, (_, i) => `label ${i}`);
  const model = serializeCheckpoint(config, initialWeights(config, 1));
  const bytes = writeHealthBundle(model, {
    name: 'test',
    task,
    normalizer: golden,
    labels,
    provenance: { data: 'made up' },
    ...(extra.calibration ? { calibration: [extra.calibration] } : {}),
  });
  return { config, bytes };
}

describe('bundle', () => {
  test('carries everything, with a hash that guards it', () => {
    const calibration = Calibration.fit('platt', [0, 1, 0, 1], [0.2, 0.3, 0.6, 0.7]);
    const { config, bytes } = bundleOf('in-hospital-mortality', { calibration });
    const bundle = readBundle(bytes)!;
    const preprocessing = readHealthPreprocessing(bundle, config);
    expect(preprocessing.task).toEqual(healthTasks['in-hospital-mortality']);
    expect(preprocessing.normalizer.toJSON()).toEqual(golden.toJSON());
    expect(preprocessing.calibration[0]!.toJSON()).toEqual(calibration.toJSON());
    expect(preprocessing.bins).toEqual({ step: 1, fill: 'previous', start: 'zero', masks: true });
    expect(preprocessing.hash).toMatch(/^[0-9a-f]{64}$/);
    const changed = bytes.slice();
    changed[changed.length - 1]! ^= 1;
    expect(() => readBundle(changed)).toThrow(/SHA-256/);
  });

  test.each<[string, (features: Record<string, unknown>) => void, RegExp]>([
    ['feature count', (f) => (f.columns as string[]).pop(), /expected 76 feature columns, got 75/],
    ['order', (f) => (f.columns as string[]).reverse(), /column 0: expected "Capillary refill rate->0.0"/],
    ['version', (f) => Object.assign(f, { version: 2 }), /features of version 1, got 2/],
    ['schema', (f) => Object.assign(f, { schema: 9 }), /schema of version 1, got 9/],
    ['fill', (f) => Object.assign((f.variables as { fill: string }[])[8]!, { fill: '87' }), /variable 8: .*Heart Rate/],
    ['task', (f) => Object.assign(f, { task: 'decompensation' }), /readout "steps" for decompensation, got "step"/],
    [
      'normaliser',
      (f) => Object.assign(f, { normalizer: { mean: [1], scale: [1] } }),
      /normalizer of 76 columns, got 1/,
    ],
    ['calibration', (f) => Object.assign(f, { calibration: [] }), /1 labels with a calibration or null each/],
  ])('a mismatch in %s is refused', (_, change, message) => {
    const { config, bytes } = bundleOf('in-hospital-mortality');
    const bundle = readBundle(bytes)!;
    change(bundle.features as Record<string, unknown>);
    expect(() => readHealthPreprocessing(bundle, config)).toThrow(message);
  });

  test('a model of another feature count is refused', () => {
    const { bytes } = bundleOf('in-hospital-mortality');
    const other = presets.mortality({ hidden: 16, layers: 1, embedding: { kind: 'features', size: 75 } });
    expect(() => readHealthPreprocessing(readBundle(bytes)!, other)).toThrow(/a model of 76 features, got 75 features/);
  });
});

describe('source', () => {
  test('score: every stay once, readout steps, calibrated probabilities', async () => {
    const calibration = Calibration.fit('temperature', [0, 1, 0, 1], [0.2, 0.3, 0.6, 0.7]);
    const { config, bytes } = bundleOf('in-hospital-mortality', { calibration });
    const source = healthSource(readBundle(bytes)!, config, [join(fixtures, 'ihm/input')]);
    const seen = [];
    for await (const { ids, feeds, pick, calibrate } of source.score({ batch: 4 })) {
      seen.push(...ids);
      expect((feeds.features as Tensor).dims).toEqual([ids.length, 48, 76]);
      expect(Array.from((feeds.step as Tensor<'int32'>).data)).toEqual(ids.map(() => 47));
      expect(calibrate!(pick!([0.25]))[0]).toBe(calibration.probability(0.25));
    }
    expect(seen).toEqual(ids.map((id) => `${id}_episode1`));
  });

  test('labelled hours of length of stay: one row a valid step', async () => {
    const { config, bytes } = bundleOf('length-of-stay');
    const source = healthSource(readBundle(bytes)!, config, [join(folder, 'los')]);
    let rows = 0;
    for await (const batch of source.labelled('test', { batch: 8 })) {
      rows += batch.ids.length;
      expect(batch.labels).toHaveLength(batch.ids.length);
      const raw = Float64Array.from({ length: 6 * 504 * 10 }, (_, i) => i);
      const picked = batch.pick!(raw);
      expect(picked).toHaveLength(batch.ids.length * 10);
      expect(picked[0]).toBe(0);
      for (const labels of batch.labels) expect(labels.reduce((a: number, b) => a + b!, 0)).toBe(1);
    }
    expect(rows).toBe(5 + 30 + 24 + 26 + 60 + 9);
  });

  test('negative hours and later ones are cut as the task scripts cut them', async () => {
    const preparer = new EpisodePreparer({ task: healthTasks['in-hospital-mortality'] });
    const text = synthesizeEpisode(3, { hours: 60 }).text.split('\n');
    const cut = [text[0], ...text.slice(1).filter((l) => l !== '' && Number(l.split(',')[0]) < 48), ''].join('\n');
    const withEarly = [text[0], '-2.0,,,,,,,,,80,,,,,,,,', ...text.slice(1)].join('\n');
    const open = async (content: string) => {
      const file = join(folder, 'one_timeseries.csv');
      writeFileSync(file, content);
      for await (const input of openEpisodes([file], { drops: new DropReport() })) return preparer.prepare(input)!;
      throw new Error('no stay');
    };
    expect((await open(withEarly)).features).toEqual((await open(cut)).features);
  });
});

test('synthetic stays: the same text for the same seed, rates near the published ones', () => {
  expect(synthesizeEpisode(5)).toEqual(synthesizeEpisode(5));
  expect(synthesizeEpisode(5, { seed: 2 }).text).not.toBe(synthesizeEpisode(5).text);
  const preparer = new EpisodePreparer({ task: healthTasks['in-hospital-mortality'] });
  let heart = 0;
  let died = 0;
  const stays = 300;
  for (let i = 0; i < stays; i++) {
    const { id, text, died: d } = synthesizeEpisode(i);
    const { values } = preparer.bin(episodeFromText(id, id, text))!;
    for (let b = 0; b < 48; b++) heart += values[b * 76 + 67]!;
    died += d;
  }
  expect(Math.abs(heart / (stays * 48) - 0.925)).toBeLessThan(0.02);
  expect(died / stays).toBeGreaterThan(0.05);
  expect(died / stays).toBeLessThan(0.25);
});
