/** What the health commands make of list files, folders and names of stays: nothing is merged, cut or passed over without a word. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { presets } from '../../../src/config/presets';
import type { HPformerConfig } from '../../../src/config/types';
import { DropReport, openEpisodes } from '../../../src/data/health';
import { hpformer } from '../cli/run';
import { fixtureText } from './fixtures';

let folder: string;
const at = (name: string) => path.join(folder, name);
const read = (name: string) => fs.readFileSync(at(name), 'utf8');
const put = (name: string, text: string): string => {
  fs.mkdirSync(path.dirname(at(name)), { recursive: true });
  fs.writeFileSync(at(name), text);
  return at(name);
};
async function ok(...args: string[]): Promise<string> {
  const { code, out, err } = await hpformer(...args);
  if (code !== 0) throw new Error(`${args.join(' ')}: exit code ${code}: ${err}`);
  return out;
}
const stays: string[] = [];
const mortality = () => ['--task', 'in-hospital-mortality', '--normalizer', at('normalizer.json')];
const cpu = ['--device', 'cpu'];

beforeAll(async () => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-inputs-')));
  const config = presets.mortality({ hidden: 16, layers: 1 });
  fs.writeFileSync(at('model.safetensors'), serializeCheckpoint(config, initialWeights(config, 1)));
  await ok('prepare', 'synthetic', '--count', '40', '--seed', '9', '--out', at('stays'));
  await ok('prepare', 'normalizer', at('stays'), '--out', at('normalizer.json'));
  await ok('prepare', 'bundle', at('model.safetensors'), ...mortality(), '--out', at('b.safetensors'));
  for (const name of fs.readdirSync(at('stays/0000')).sort()) stays.push(read(`stays/0000/${name}`));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

describe('JSON lines', () => {
  const line = (stay: string, value: number) =>
    `{"stay": ${stay}, "hours": 1, "variable": "Heart Rate", "value": ${value}}\n`;
  const ids = async (text: string, lenient: boolean, drops = new DropReport()) => {
    const found: string[] = [];
    for await (const { id } of openEpisodes([put('ids.jsonl', text)], { drops, lenient })) found.push(id);
    return { found, dropped: drops.toJSON() };
  };

  test('numbers that JSON takes for one another are no names of stays', async () => {
    const text = line('9007199254740992', 80) + line('9007199254740993', 90);
    await expect(ids(text, false)).rejects.toThrow(/line 1, column "stay": stay is a number above 2\^53 - 1/);
    const { found, dropped } = await ids(line('7', 80) + text + line('"9007199254740993"', 90), true);
    expect(found).toEqual(['7', '9007199254740993']);
    expect(Object.values(dropped)).toEqual([expect.objectContaining({ count: 2 })]);
  });
});

describe('list files', () => {
  test('a stay is named by the folder of its list, wherever the command runs', async () => {
    put('pat/10001/episode1_timeseries.csv', stays[0]!);
    const list = put('pat/10001/listfile.csv', 'stay,y_true\nepisode1_timeseries.csv,1\n');
    await ok('prepare', 'arrays', '--list', list, '--normalizer', at('normalizer.json'), '--out', at('pat-out'));
    expect(read('pat-out/ids.txt')).toBe('10001_episode1\n');
  });

  test('lists of extract name files as the task folders will; they are found beside the list', async () => {
    for (const name of ['events', 'stays', 'diagnoses'])
      put(`subjects/30001/${name}.csv`, fixtureText(`events/${name}.csv`));
    await ok('prepare', 'extract', at('subjects'), '--out', at('episodes'));
    const task = ['--task', 'decompensation', '--normalizer', at('normalizer.json')];
    const list = at('episodes/30001/decompensation_listfile.csv');
    expect(fs.readFileSync(list, 'utf8')).toContain('30001_episode1_timeseries.csv');
    expect(
      JSON.parse(await ok('prepare', 'arrays', '--list', list, ...task, '--out', at('dp'), '--json')),
    ).toMatchObject({
      episodes: 1,
      labelled: true,
    });
    expect(read('dp/ids.txt')).toBe('30001_episode1\n');
    // Another subject's name is not this subject's file.
    const other = put('pat/10001/other_listfile.csv', 'stay,y_true\n10002_episode1_timeseries.csv,1\n');
    expect(await hpformer('prepare', 'arrays', '--list', other, '--out', at('other'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('10002_episode1_timeseries.csv: cannot be read'),
    });
  });

  test('a part of a list file is refused, and a calibration judged on its own rows says so', async () => {
    const list = at('stays/listfile.csv');
    const evaluate = (...more: string[]) =>
      hpformer('evaluate', at('b.safetensors'), list, '--bootstrap', '0', ...cpu, ...more);
    expect(await evaluate('--part', 'train')).toMatchObject({
      code: 2,
      err: expect.stringContaining('--part: expected a folder of list files with it'),
    });
    const note = { code: 0, err: expect.stringContaining('judged on rows that it was fitted on') };
    expect(await evaluate('--calibrate', 'platt')).toMatchObject(note);
    expect(await evaluate('--calibrate', 'platt', '--calibrate-on', 'test')).toMatchObject(note);
    expect(await evaluate('--part', 'all')).toMatchObject({ code: 0, err: '' });
    // Another name of the same file is the same file; another file is none.
    fs.mkdirSync(at('parts'));
    fs.symlinkSync(at('stays/0000'), at('parts/0000'));
    fs.symlinkSync(list, at('parts/test_listfile.csv'));
    fs.symlinkSync(list, at('parts/val_listfile.csv'));
    const folderOf = () => hpformer('evaluate', at('b.safetensors'), at('parts'), '--calibrate', 'platt', ...cpu);
    expect(await folderOf()).toMatchObject(note);
    fs.rmSync(at('parts/val_listfile.csv'));
    fs.copyFileSync(list, at('parts/val_listfile.csv'));
    expect(await folderOf()).toMatchObject({ code: 0, err: '' });
  });
});

describe('prepare bundle, prepare arrays', () => {
  const bundle = (model: string, ...more: string[]) =>
    hpformer('prepare', 'bundle', at(model), ...mortality(), '--out', at('x.safetensors'), ...more);
  const model = (name: string, config: HPformerConfig) =>
    fs.writeFileSync(at(name), serializeCheckpoint(config, initialWeights(config, 1)));

  test('what no command could use is not written', async () => {
    model('three.safetensors', presets.mortality({ hidden: 16, layers: 1, head: { labels: 3 } }));
    model('hourly.safetensors', presets.decompensation({ hidden: 16, layers: 1 }));
    model('tokens.safetensors', presets.mortality({ hidden: 16, layers: 1, embedding: { size: 59 } }));
    for (const [args, message] of [
      [['model.safetensors', '--labels', 'a,b'], /expected 1 labels with a calibration or null each, got 2 and 2/],
      [['three.safetensors', '--labels', 'a,b,a'], /labels: expected each name once, got "a" twice/],
      [['hourly.safetensors'], /expected the readout "step" for in-hospital-mortality, got "steps"/],
      [['tokens.safetensors'], /expected a model of 76 features, got 59 features/],
      [['model.safetensors', '--no-masks'], /expected a normalizer of 59 columns, got 76/],
      [['model.safetensors', '--steps', '24'], /expected at least 48 steps of 1 h for the 48 hours of .*, got 24/],
      [['model.safetensors', '--step', '0.5'], /expected at least 96 steps of 0\.5 h for the 48 hours of .*, got 48/],
      [['model.safetensors', '--steps', '50'], /expected the 48 steps of the model, got 50/],
    ] as [string[], RegExp][]) {
      const { code, err } = await bundle(...(args as [string, ...string[]]));
      expect(err).toMatch(message);
      expect(code).toBe(1);
      expect(fs.existsSync(at('x.safetensors'))).toBe(false);
    }
  });

  test('calibrations and provenance of another form', async () => {
    for (const [option, text, message] of [
      ['--calibration', '{}', /f\.json: expected a list with a calibration or null for each label/],
      ['--calibration', 'null', /f\.json: expected a list with a calibration or null for each label, got null/],
      ['--calibration', '[7]', /calibration: expected the JSON of a calibration, got 7/],
      ['--provenance', '[1]', /f\.json: expected an object/],
      ['--provenance', 'null', /f\.json: expected an object, got null/],
      ['--config', '3', /f\.json: expected an object, got 3/],
    ] as const) {
      const { code, err } = await bundle('model.safetensors', option, put('f.json', text));
      expect(err).toMatch(message);
      expect(err).toMatch(/ERR_HPFORMER_(FILE|INPUT)/);
      expect(code).toBe(1);
    }
  });

  test('steps that end before the window of the task, and labels of steps that are no hours', async () => {
    const arrays = (...more: string[]) => hpformer('prepare', 'arrays', '--out', at('cut'), ...more);
    expect((await arrays(at('stays'), '--step', '0.5')).err).toMatch(/expected at least 96 steps of 0\.5 h/);
    expect((await arrays(at('stays'), '--step', '0.5', '--steps', '96')).code).toBe(0);
    const list = ['--list', at('episodes/30001/decompensation_listfile.csv'), '--task', 'decompensation'];
    expect((await arrays(...list, '--step', '2')).err).toMatch(/expected steps of 1 h for labels of decompensation/);
  });
});

test('length of stay, calibrated class by class: predictions, records and explanations sum to 1', async () => {
  const config = presets.lengthOfStay({ hidden: 16, layers: 1 });
  fs.writeFileSync(at('los.safetensors'), serializeCheckpoint(config, initialWeights(config, 1)));
  const platt = { method: 'platt', slope: 0.8, intercept: -0.7 };
  const calibration = put('ten.json', JSON.stringify([null, ...Array.from({ length: 9 }, () => platt)]));
  const task = ['--task', 'length-of-stay', '--normalizer', at('normalizer.json'), '--calibration', calibration];
  await ok('prepare', 'bundle', at('los.safetensors'), ...task, '--out', at('los-b.safetensors'));
  const stay = put('one/1_episode1_timeseries.csv', stays[0]!);
  const scores = await ok('predict', at('los-b.safetensors'), stay, '--record', at('los.jsonl'), ...cpu);
  const [, ...columns] = scores.trim().split('\n')[1]!.split(',').map(Number);
  const explained = JSON.parse(
    await ok('explain', at('los-b.safetensors'), stay, '--perturb', 'none', '--json', ...cpu),
  );
  const record = JSON.parse(read('los.jsonl')) as { labels: { calibrated: number }[] };
  for (const row of [
    columns,
    explained[0].probabilities,
    record.labels.map(({ calibrated }) => calibrated),
  ] as number[][]) {
    expect(row).toHaveLength(10);
    expect(row.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 7);
  }
});

describe('folders', () => {
  test('nothing to work on is an error, for every command', async () => {
    fs.mkdirSync(at('empty'));
    const empty = [at('empty'), put('empty.jsonl', '\n')];
    const bundle = at('b.safetensors');
    const zero = put('zero/test_listfile.csv', 'stay,y_true\n');
    for (const input of empty) {
      for (const args of [
        ['predict', bundle, input, '--out', at('nothing.csv'), ...cpu],
        ['predict', bundle, input, ...cpu],
        ['explain', bundle, input, ...cpu],
        ['prepare', 'arrays', input, '--normalizer', at('normalizer.json'), '--out', at('no-arrays')],
        ['prepare', 'normalizer', input, '--out', at('no.json')],
      ]) {
        const { code, out, err } = await hpformer(...args);
        expect([code, out, err]).toEqual([
          1,
          '',
          expect.stringMatching(/: expected at least one .*, got none.*_INPUT/),
        ]);
        expect(err).toContain(input);
      }
    }
    expect(await hpformer('prepare', 'extract', at('empty'), '--out', at('none'))).toMatchObject({ code: 1 });
    expect(await hpformer('evaluate', bundle, path.dirname(zero), ...cpu)).toMatchObject({ code: 1 });
    expect(fs.existsSync(at('nothing.csv'))).toBe(false);
    expect(fs.existsSync(at('no-arrays/prepare.json'))).toBe(false);
  });

  test('a pipe of the name of an episode is an error, not a wait', async () => {
    put('pipes/a_timeseries.csv', stays[0]!);
    put('pipes/listfile.csv', 'stay,y_true\nb_timeseries.csv,1\n');
    for (const name of ['b_timeseries.csv', 'b.jsonl', 'b.json', 'b.parquet']) {
      execFileSync('mkfifo', [at(`pipes/${name}`)]);
      for (const input of [at('pipes'), at(`pipes/${name}`)]) {
        const { code, err } = await hpformer('predict', at('b.safetensors'), input, '--out', at('pipe.csv'), ...cpu);
        expect([code, err]).toEqual([1, expect.stringContaining(`${name}: expected a file, got something else`)]);
      }
      if (name.endsWith('.csv')) {
        const { code, err } = await hpformer('evaluate', at('b.safetensors'), at('pipes'), ...cpu);
        expect([code, err]).toEqual([1, expect.stringContaining(`${name}: expected a file, got something else`)]);
      }
      fs.rmSync(at(`pipes/${name}`));
    }
  });

  test('links are followed, and end where they lead round', async () => {
    put('real/1_episode1_timeseries.csv', stays[0]!);
    put('far/2_episode1_timeseries.csv', stays[1]!);
    fs.symlinkSync(at('far'), at('real/linked'));
    fs.symlinkSync(at('real'), at('far/back'));
    fs.symlinkSync(at('far/2_episode1_timeseries.csv'), at('real/3_episode1_timeseries.csv'));
    const scores = await ok('predict', at('b.safetensors'), at('real'), ...cpu);
    const ids = scores.trim().split('\n').slice(1);
    expect(ids.map((line) => line.split(',')[0])).toEqual(['1_episode1', '3_episode1', '2_episode1']);
  });
});

describe('what is left out or wrong is said', () => {
  const reading = (stay: string, hours: number, value: string) =>
    `{"stay": "${stay}", "hours": ${hours}, "variable": "Heart Rate", "value": ${value}}\n`;

  test('normaliser: counted', async () => {
    const text = reading('a', 1, '80') + reading('b', 60, '80') + reading('c', 1, 'true');
    const args = ['prepare', 'normalizer', put('some.jsonl', text), '--out', at('some.json'), '--lenient'];
    expect((await hpformer(...args)).err).toMatch(/left out: 2 × no reading in the window/);
    expect(JSON.parse(await ok(...args, '--json')).dropped).toMatchObject({
      'no reading in the window of the task': { count: 2 },
      'value is no number or text': { count: 1 },
    });
  });

  test('evaluate, as JSON too; explain', async () => {
    const late = stays[0]!.split('\n')[0]!;
    put('late/1_episode1_timeseries.csv', stays[0]!);
    put('late/2_episode1_timeseries.csv', `${late}\n60,${','.repeat(16)}\n`);
    put('late/listfile.csv', 'stay,y_true\n1_episode1_timeseries.csv,1\n2_episode1_timeseries.csv,0\n');
    const { dropped } = JSON.parse(await ok('evaluate', at('b.safetensors'), at('late'), '--json', ...cpu));
    expect(dropped).toMatchObject({ 'no reading in the window of the task': { count: 1 } });
    const explained = await hpformer('explain', at('b.safetensors'), at('late'), '--perturb', 'none', ...cpu);
    expect(explained).toMatchObject({ code: 0, err: expect.stringMatching(/left out: 1 × no reading .*2_episode1/) });
  });

  test('hours after the window of an hourly model: counted, and a warning in the record', async () => {
    const config = presets.decompensation({ hidden: 16, layers: 1, segments: { steps: 24 } });
    fs.writeFileSync(at('day.safetensors'), serializeCheckpoint(config, initialWeights(config, 1)));
    const task = ['--task', 'decompensation', '--normalizer', at('normalizer.json')];
    await ok('prepare', 'bundle', at('day.safetensors'), ...task, '--out', at('day-b.safetensors'));
    const text = reading('long', 1, '80') + reading('long', 29.5, '90') + reading('short', 23, '80');
    const input = put('long.jsonl', text);
    const record = ['--record', at('long-r.jsonl')];
    const { err } = await hpformer('predict', at('day-b.safetensors'), input, ...record, ...cpu);
    expect(err).toContain('left out: 1 × later hours of a stay longer than the 24 steps of the model');
    const [long, short] = read('long-r.jsonl')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).warnings);
    expect(long).toContain('the stay goes on for 6 steps that the model does not see');
    expect(JSON.stringify(short)).not.toContain('goes on');
    const late = await hpformer('explain', at('day-b.safetensors'), input, '--hour', '24', '--perturb', 'none', ...cpu);
    expect(late).toMatchObject({
      code: 2,
      err: expect.stringContaining('--hour: expected at most 23 for short, got 24'),
    });
  });

  test('scores that are no numbers, and stays of one name', async () => {
    put('nan/1_episode1_timeseries.csv', stays[0]!);
    put('nan/2_episode1_timeseries.csv', stays[1]!.replace(/\n([\d.]+),[^\n]*/, `\n$1,,nan${','.repeat(15)}`));
    put('nan/listfile.csv', 'stay,y_true\n1_episode1_timeseries.csv,1\n2_episode1_timeseries.csv,0\n');
    const scored = await hpformer('predict', at('b.safetensors'), at('nan'), at('nan'), ...cpu);
    expect(scored.code).toBe(0);
    expect(scored.err).toMatch(/2 of 4 episodes have the name of an earlier one, first: 1_episode1\n/);
    expect(scored.err).toMatch(/2 of 4 episodes have a score that is no number .*, first: 2_episode1\n/);
    expect(await hpformer('evaluate', at('b.safetensors'), at('nan'), ...cpu)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/2_episode1: expected a probability, got NaN .*ERR_HPFORMER_INPUT/),
    });
  });

  test('a name of two lines is no line of ids.txt', async () => {
    const input = put('lines.jsonl', reading('a\\nb', 1, '80'));
    const args = ['prepare', 'arrays', input, '--normalizer', at('normalizer.json'), '--out', at('lines-out')];
    expect(await hpformer(...args)).toMatchObject({
      code: 1,
      err: expect.stringContaining('the name of a stay in one line'),
    });
    expect(fs.existsSync(at('lines-out/ids.txt'))).toBe(false);
  });
});

test('a temperature at its bound is noted', async () => {
  const list = fs.readFileSync(at('stays/listfile.csv'), 'utf8').trim().split('\n');
  const scores = await ok('predict', at('b.safetensors'), at('stays'), ...cpu);
  const score = new Map(scores.split('\n').map((line) => line.split(',') as [string, string]));
  const known = list.slice(1).map((line) => ({ file: line.split(',')[0]!, p: 0 }));
  for (const stay of known) stay.p = Number(score.get(/(\d+_episode1)/.exec(stay.file)![1]!));
  known.sort((a, b) => a.p - b.p);
  // The least of the scores died: the wrong way round.
  const lines = known.map(({ file }, i) => `${file},${i < known.length / 2 ? 1 : 0}\n`);
  fs.mkdirSync(at('wrong'));
  fs.symlinkSync(at('stays/0000'), at('wrong/0000'));
  put('wrong/listfile.csv', `stay,y_true\n${lines.join('')}`);
  const calibrate = ['--calibrate', 'temperature', '--calibrate-on', 'test', '--bootstrap', '0'];
  const { code, err } = await hpformer('evaluate', at('b.safetensors'), at('wrong'), ...calibrate, ...cpu);
  expect([code, err]).toEqual([0, expect.stringContaining('the temperature is at its bound')]);
});
