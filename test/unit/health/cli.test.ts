import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { presets } from '../../../src/config/presets';
import { Calibration } from '../../../src/data/health';
import { hpformer } from '../cli/run';
import { fixtureText } from './fixtures';

async function ok(...args: string[]): Promise<string> {
  const { code, out, err } = await hpformer(...args);
  if (code !== 0) throw new Error(`${args.join(' ')}: exit code ${code}: ${err}`);
  return out;
}

let folder: string;
const at = (name: string) => path.join(folder, name);
const read = (name: string) => fs.readFileSync(at(name), 'utf8');
const count = 60;

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-health-cli-'));
  const config = presets.mortality({ hidden: 16, layers: 2 });
  fs.writeFileSync(at('model.safetensors'), serializeCheckpoint(config, initialWeights(config, 1)));
  await ok('prepare', 'synthetic', '--count', String(count), '--seed', '9', '--out', at('stays'));
  await ok('prepare', 'normalizer', at('stays'), '--out', at('normalizer.json'));
  const bundle = [
    '--task',
    'in-hospital-mortality',
    '--normalizer',
    at('normalizer.json'),
    '--out',
    at('b.safetensors'),
  ];
  await ok('prepare', 'bundle', at('model.safetensors'), ...bundle, '--labels', 'death');
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

describe('prepare, predict', () => {
  test('CSV and prepared arrays give the same scores; every stay has one', async () => {
    await ok('prepare', 'arrays', at('stays'), '--normalizer', at('normalizer.json'), '--out', at('arrays'));
    await ok('predict', at('b.safetensors'), at('stays'), '--out', at('a.csv'), '--device', 'cpu');
    await ok('predict', at('b.safetensors'), at('arrays'), '--out', at('p.csv'), '--device', 'cpu');
    expect(read('a.csv')).toBe(read('p.csv'));
    const lines = read('a.csv').trim().split('\n');
    expect(lines[0]).toBe('patient,probability');
    expect(lines).toHaveLength(count + 1);
    expect(lines[1]).toMatch(/^100000_episode1,0\.\d+$/);
  });

  test('a list adds labels', async () => {
    const list = path.join(at('stays'), 'listfile.csv');
    const out = JSON.parse(await ok('prepare', 'arrays', '--list', list, '--out', at('listed'), '--json'));
    expect(out).toMatchObject({ episodes: count, labelled: true, steps: 48 });
    expect(fs.statSync(at('listed/labels.npy')).size).toBe(128 + 4 * count);
  });

  test('arrays of another preprocessing are refused', async () => {
    await ok('prepare', 'arrays', at('stays'), '--out', at('other'), '--fill', 'zero');
    const { code, err } = await hpformer('predict', at('b.safetensors'), at('other'), '--device', 'cpu');
    expect(code).toBe(1);
    expect(err).toMatch(/expected arrays made with the preprocessing [0-9a-f]{64} of the model/);
  });

  test('a malformed file is named with line and column, and earlier scores stay as they were', async () => {
    fs.mkdirSync(at('bad'));
    const good = fs.readFileSync(path.join(at('stays'), '0000/100000_episode1_timeseries.csv'), 'utf8');
    fs.writeFileSync(
      at('bad/7_episode1_timeseries.csv'),
      good.replace(/^(\S+?,)/m, '$1').replace(/\n([\d.]+),/, '\nnoon,'),
    );
    fs.writeFileSync(at('old.csv'), 'old');
    const { code, err } = await hpformer(
      'predict',
      at('b.safetensors'),
      at('bad'),
      '--out',
      at('old.csv'),
      '--device',
      'cpu',
    );
    expect(code).toBe(1);
    expect(err).toMatch(/7_episode1_timeseries.csv line 2, column "Hours": expected a number of hours, got "noon"/);
    expect(read('old.csv')).toBe('old');
  });

  test('a prediction record, opt-in', async () => {
    await ok(
      'predict',
      at('b.safetensors'),
      at('stays'),
      '--out',
      at('c.csv'),
      '--record',
      at('r.jsonl'),
      '--device',
      'cpu',
    );
    const records = read('r.jsonl')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(records).toHaveLength(count);
    expect(records[0]).toMatchObject({
      format: 'hpformer-prediction',
      id: '100000_episode1',
      labels: [{ name: 'death', calibrated: null }],
      steps: 48,
      device: 'cpu',
    });
    expect(records[0].features).toBeUndefined();
    expect(read('c.csv').split('\n')[1]).toBe(`100000_episode1,${Number(records[0].labels[0].raw.toPrecision(9))}`);
  });
});

describe('evaluate', () => {
  const evaluate = (...more: string[]) =>
    ok('evaluate', at('b.safetensors'), at('stays'), '--bootstrap', '20', '--device', 'cpu', ...more);

  test('calibration judged before and after, saved, bundled, applied', async () => {
    const out = await evaluate(
      '--calibrate',
      'platt',
      '--calibrate-on',
      'test',
      '--save-calibration',
      at('c.json'),
      '--report',
      at('r.html'),
    );
    expect(out).toMatch(/death +60/);
    expect(out).toMatch(/Brier before +after +ECE before +after/);
    const [json] = JSON.parse(read('c.json'));
    const calibration = Calibration.fromJSON(json);
    const arguments_ = ['--task', 'in-hospital-mortality', '--normalizer', at('normalizer.json'), '--labels', 'death'];
    await ok(
      'prepare',
      'bundle',
      at('model.safetensors'),
      ...arguments_,
      '--calibration',
      at('c.json'),
      '--out',
      at('cal.safetensors'),
    );
    const score = async (bundle: string) => {
      await ok('predict', at(bundle), at('stays'), '--out', at('s.csv'), '--device', 'reference');
      return Number(read('s.csv').split('\n')[1]!.split(',')[1]);
    };
    const raw = await score('b.safetensors');
    expect(await score('cal.safetensors')).toBeCloseTo(calibration.probability(raw), 12);
  });

  test('the report stands alone, in light and dark', async () => {
    await evaluate('--report', at('r2.html'));
    const html = read('r2.html');
    expect(html.match(/<svg/g)).toHaveLength(3);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html).toContain("default-src 'none'");
    expect(html).not.toMatch(/(src|href)=|@import|url\(/);
  });

  test('the figures as JSON', async () => {
    const json = JSON.parse(await evaluate('--json'));
    expect(json).toMatchObject({ part: 'test', rows: count });
    expect(json.labels[0].auroc.value).toBeGreaterThan(0);
  });
});

test('explain as JSON: as many as asked, at an hour; an hour beyond the task is wrong usage', async () => {
  const args = ['explain', at('b.safetensors'), at('stays'), '--device', 'cpu', '--perturb', 'none'];
  const all = JSON.parse(await ok(...args, '--json', '--most', '2', '--hour', '5')) as { id: string; hour: number }[];
  expect(all.map(({ id, hour }) => [id, hour])).toEqual([
    ['100000_episode1', 5],
    ['100001_episode1', 5],
  ]);
  const late = await hpformer(...args, '--hour', '49');
  expect(late.code).toBe(2);
  expect(late.err).toContain('--hour: expected at most 48, got 49');
});

test('prepare: files that are not there, options out of range, labels by default', async () => {
  const model = at('model.safetensors');
  const bundle = ['prepare', 'bundle', model, '--task', 'in-hospital-mortality', '--normalizer', at('normalizer.json')];
  for (const [args, code, message] of [
    [['prepare', 'extract', at('none'), '--out', at('x')], 1, /none: cannot be read .*ERR_HPFORMER_FILE/],
    [
      ['prepare', 'synthetic', '--count', '1', '--hours', '0', '--out', at('x')],
      2,
      /--hours: expected a number from 1 to 10000, got "0"/,
    ],
    [['prepare', 'bundle', at('none'), ...bundle.slice(3), '--out', at('x')], 1, /none: cannot be read/],
  ] as const) {
    const got = await hpformer(...args);
    expect(got.err).toMatch(message);
    expect(got.code).toBe(code);
  }
  expect(JSON.parse(await ok(...bundle, '--out', at('d.safetensors'), '--json')).labels).toEqual([
    'in-hospital-mortality',
  ]);
});

test('explain: a table, and files of each stay', async () => {
  const stay = path.join(at('stays'), '0000/100001_episode1_timeseries.csv');
  const out = await ok('explain', at('b.safetensors'), stay, '--out', at('why'), '--device', 'cpu');
  expect(out).toMatch(/100001_episode1: probability 0\.\d{4} at hour 48/);
  expect(out).toMatch(/24–36 h +0\.\d{3} +[+-]0\.\d{4}/);
  expect(out).toContain('not what caused the outcome');
  expect(fs.readdirSync(at('why')).sort()).toEqual(['csv', 'json', 'svg'].map((e) => `100001_episode1.${e}`));
  expect(JSON.parse(read('why/100001_episode1.json')).perturbations).toHaveLength(21);
});

test('explain: stays of one name have files of their own; an input is not written over', async () => {
  const stay = path.join(at('stays'), '0000/100001_episode1_timeseries.csv');
  for (const folder of ['left', 'right']) {
    fs.mkdirSync(at(folder));
    fs.copyFileSync(stay, at(`${folder}/a b.csv`));
  }
  fs.copyFileSync(stay, at('right/a_b.csv'));
  const inputs = [at('left/a b.csv'), at('right/a b.csv'), at('right/a_b.csv')];
  const options = ['--device', 'cpu', '--perturb', 'none'];
  await ok('explain', at('b.safetensors'), ...inputs, '--out', at('apart'), ...options);
  expect(fs.readdirSync(at('apart')).filter((name) => name.endsWith('.csv'))).toEqual([
    'a_b-2.csv',
    'a_b-3.csv',
    'a_b.csv',
  ]);
  const { code, err } = await hpformer('explain', at('b.safetensors'), inputs[2]!, '--out', at('right'), ...options);
  expect([code, err]).toEqual([2, expect.stringContaining('--out: expected another file than the input "')]);
  expect(read('right/a_b.csv')).toBe(fs.readFileSync(stay, 'utf8'));
});

test('extract: a subject in two roots is refused before anything is written', async () => {
  for (const root of ['first', 'second']) fs.mkdirSync(at(`${root}/30001`), { recursive: true });
  for (const name of ['events', 'stays', 'diagnoses'])
    fs.writeFileSync(at(`first/30001/${name}.csv`), fixtureText(`events/${name}.csv`));
  const { code, err } = await hpformer('prepare', 'extract', at('first'), at('second'), '--out', at('twice'));
  expect(code).toBe(1);
  expect(err).toContain(`${at('second/30001')}: expected each subject once, got 30001 in ${at('first/30001')} too`);
  expect(fs.existsSync(at('twice'))).toBe(false);
});

test('extract: subject folders to episode and list files', async () => {
  fs.mkdirSync(at('subjects/30001'), { recursive: true });
  for (const name of ['events', 'stays', 'diagnoses']) {
    fs.writeFileSync(at(`subjects/30001/${name}.csv`), fixtureText(`events/${name}.csv`));
  }
  const out = await ok(
    'prepare',
    'extract',
    at('subjects'),
    '--compat',
    'published',
    '--out',
    at('episodes'),
    '--json',
  );
  expect(JSON.parse(out)).toMatchObject({ subjects: 1, episodes: 1, dropped: { 'item of no variable': 1 } });
  expect(read('episodes/30001/episode1_timeseries.csv')).toBe(fixtureText('events/expected_episode1_timeseries.csv'));
  expect(await ok('predict', at('b.safetensors'), at('episodes'), '--device', 'cpu')).toMatch(/\n30001_episode1,0\./);
  fs.writeFileSync(at('subjects/30001/stays.csv'), 'a\n1\n');
  const { code, err } = await hpformer('prepare', 'extract', at('subjects'), '--out', at('episodes'));
  expect([code, err]).toEqual([1, expect.stringMatching(/30001\/stays line 1: expected a column "subject_id"/)]);
});

test.each([
  [['prepare', 'bake'], /expected arrays, normalizer, extract, bundle, synthetic, got "bake"/],
  [['prepare', 'arrays', 'x'], /expected --out/],
  [['prepare', 'arrays', '--out', 'x'], /expected episode files or folders, or --list/],
  [['prepare', 'synthetic', 'x', '--out', 'y'], /expected no inputs/],
  [['prepare', 'arrays', 'x', '--out', 'y', '--step', '0'], /--step: expected a positive number/],
  [['prepare', 'arrays', 'x', '--out', 'y', '--fill', 'mean'], /--fill: expected previous, next, normal, zero/],
])('wrong usage: %j', async (args, message) => {
  const { code, err } = await hpformer(...args);
  expect(err).toMatch(message);
  expect(code).toBe(2);
});
