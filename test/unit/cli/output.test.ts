/** Outputs that would only fail after the work, or whose success would be regretted. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { UsageError } from '../../../src/cli/command';
import { commands } from '../../../src/cli/main';
import { checkOutputs } from '../../../src/cli/output';
import { presets } from '../../../src/config/presets';
import { describeUnless, withoutProgram } from '../../skips';
import { hpformer } from './run';

const model = path.join(__dirname, '../../../examples/nafld-mortality');

/** A value that each option takes; any other takes 1. */
const valid: Record<string, string> = {
  task: 'phenotyping',
  fill: 'zero',
  start: 'zero',
  compat: 'published',
  columns: 'all',
};

let folder: string;
const at = (name: string) => path.join(folder, name);
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-output-'));
  fs.writeFileSync(at('file.txt'), 'text');
  fs.mkdirSync(at('taken.csv'));
  fs.writeFileSync(at('people.csv'), 'patient\n1\n');
  const config = presets.mortality({ layers: 1, hidden: 8, heads: 2, embedding: { size: 3 } });
  fs.writeFileSync(at('m.safetensors'), serializeCheckpoint(config, initialWeights(config, 1)));
  fs.copyFileSync(at('m.safetensors'), at('m'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

test.each<[string[], RegExp]>([
  [
    ['predict', model, 'nowhere', '--out', 'taken.csv'],
    /taken\.csv: expected the name of a file to write, got a direc/,
  ],
  [['predict', model, 'nowhere', '--out', 'none/x.csv'], /none\/x\.csv: cannot be written \(ENOENT: no such file or d/],
  [['predict', model, 'nowhere', '--out', 'file.txt/x.csv'], /x\.csv: cannot be written \(ENOTDIR: not a directory\)/],
  [['evaluate', model, 'nowhere', '--report', 'none/r.html'], /none\/r\.html: cannot be written \(ENOENT/],
  [
    ['evaluate', model, 'nowhere', '--calibrate', 'platt', '--save-calibration', 'taken.csv'],
    /taken\.csv: expected the name of a file to write, got a directory/,
  ],
  [['convert', 'm.safetensors', 'taken.csv', '--to', 'onnx'], /taken\.csv: expected the name of a file to write, got/],
  [['prepare', 'normalizer', 'nowhere', '--out', 'taken.csv'], /taken\.csv: expected the name of a file to write, got/],
  [
    ['prepare', 'bundle', 'nowhere', '--task', 'phenotyping', '--normalizer', 'nowhere', '--out', 'none/b'],
    /none\/b: cannot be written \(ENOENT/,
  ],
  [['bench', 'model', 'nowhere', '--html', 'taken.csv'], /taken\.csv: expected the name of a file to write, got a dir/],
])('%j fails before any work', async (args, message) => {
  const before = fs.readdirSync(folder);
  const got = await hpformer(...args.map((arg) => (/[.]|none|^m$/.test(arg) && !path.isAbsolute(arg) ? at(arg) : arg)));
  expect(got.err).toMatch(message);
  expect(got.err).toMatch(/ \(ERR_HPFORMER_FILE\)\n$/);
  expect([got.code, got.out]).toEqual([1, '']);
  expect(fs.readdirSync(folder)).toEqual(before);
});

test.each<[string[], string]>([
  [['predict', model, 'people.csv', '--out', 'people.csv'], '--out'],
  [['predict', model, 'people.csv', '--record', 'people.csv'], '--record'],
  [['evaluate', model, 'people.csv', '--report', 'people.csv'], '--report'],
  [['convert', 'm', 'm', '--to', 'onnx'], 'output'],
  [['prepare', 'normalizer', 'people.csv', '--out', 'people.csv'], '--out'],
  [['prepare', 'bundle', 'm', '--task', 'phenotyping', '--normalizer', 'people.csv', '--out', 'people.csv'], '--out'],
])('%j would replace an input: wrong usage', async (args, given) => {
  const named = args.map((arg) => (/^m$|people/.test(arg) ? at(arg) : arg));
  const input = named.find((arg) => arg.startsWith(folder) && (arg === at('m') ? args[0] === 'convert' : true))!;
  const content = fs.readFileSync(input);
  const { code, out, err } = await hpformer(...named);
  expect([code, out]).toEqual([2, '']);
  expect(err).toContain(`${given}: expected another file than the input "${input}"\n`);
  expect(fs.readFileSync(input).equals(content)).toBe(true);
});

test('a record that the model does not keep is wrong usage, and no file of it is made', async () => {
  const { code, err } = await hpformer('predict', model, 'nowhere', '--record', at('r.jsonl'), '--device', 'reference');
  expect(code).toBe(2);
  expect(err).toMatch(/--record: expected a health bundle, whose recipe keeps prediction records/);
  expect(fs.existsSync(at('r.jsonl'))).toBe(false);
});

test('every option of prepare is read by an action', async () => {
  for (const name of Object.keys(commands.prepare!.options)) {
    if (name === 'out') continue;
    const { type } = commands.prepare!.options[name]!;
    // An action that reads it goes on to what is missing: inputs, --out or the like.
    const answers = await Promise.all(
      ['arrays', 'normalizer', 'extract', 'bundle', 'synthetic'].map((action) =>
        hpformer('prepare', action, ...(type === 'boolean' ? [`--${name}`] : [`--${name}`, valid[name] ?? '1'])),
      ),
    );
    expect([name, answers.some(({ err }) => !err.includes('with it, got'))]).toEqual([name, true]);
  }
});

test('a link to an input is that input; a file that is no input may be replaced', async () => {
  fs.symlinkSync(at('people.csv'), at('link.csv'));
  const check = (file: string | undefined, ...inputs: string[]) => checkOutputs([{ given: '--out', file }], inputs);
  await expect(check(at('link.csv'), 'nowhere', at('people.csv'))).rejects.toThrow(UsageError);
  await expect(check(at('file.txt'), at('people.csv'))).resolves.toBeUndefined();
  await expect(check(at('new'), at('people.csv'))).resolves.toBeUndefined();
  await expect(check(undefined)).resolves.toBeUndefined();
});

test.each([
  'predict M nowhere --record M',
  'predict M.csv nowhere --out M.csv',
  'predict M FOLDER --record FOLDER/7_episode1_timeseries.csv',
  'evaluate M nowhere --report M',
  'evaluate M nowhere --calibrate platt --save-calibration M',
  'evaluate FOLDER nowhere --report FOLDER/hpformer.json',
  'convert M TEXT --to safetensors --config TEXT',
  'convert M TEXT --to safetensors --bundle TEXT',
  'convert M FOLDER/x.safetensors --config FOLDER/hpformer.json --manifest',
  'prepare normalizer --list LIST --out LIST',
  'prepare normalizer --list LIST --out FOLDER/7_episode1_timeseries.csv',
  'prepare arrays FOLDER --out FOLDER',
  'prepare bundle M --task phenotyping --normalizer nowhere --config TEXT --out TEXT',
  'prepare bundle M --task phenotyping --normalizer nowhere --calibration TEXT --out TEXT',
  'prepare bundle M --task phenotyping --normalizer nowhere --provenance TEXT --out TEXT',
])('%s would replace what it reads: wrong usage', async (line) => {
  const standIns = { LIST: 'list.csv', FOLDER: 'folder', TEXT: 'file.txt', M: 'm' };
  fs.copyFileSync(at('m'), at('m.csv'));
  fs.mkdirSync(at('folder'));
  for (const name of ['hpformer.json', 'prepare.json', '7_episode1_timeseries.csv'])
    fs.writeFileSync(at(`folder/${name}`), '{}');
  fs.writeFileSync(at('list.csv'), 'stay,y_true\nfolder/7_episode1_timeseries.csv,0\n');
  const args = line.replace(/LIST|FOLDER|TEXT|M(?=[ .]|$)/g, (name) => at(standIns[name as 'M'])).split(' ');
  const { code, err } = await hpformer(...args);
  expect(err).toMatch(/: (--[a-z-]+|output): expected another file than (the input )?"/);
  expect(code).toBe(2);
});

test.each([
  'predict M nowhere --out NEW.jsonl --record NEW.jsonl',
  'predict M nowhere --out NEW.jsonl --record LINKED/new.jsonl',
  'evaluate M nowhere --calibrate platt --report NEW --save-calibration NEW',
  'evaluate M nowhere --calibrate platt --report people.csv --save-calibration ./people.csv',
])('%s names two outputs in one file: wrong usage', async (line) => {
  fs.symlinkSync(folder, at('linked'));
  const args = line.replace(/M(?= )|NEW|LINKED|\S*people\.csv/g, (name) => at(name.toLowerCase())).split(' ');
  const { code, err } = await hpformer(...args);
  expect(err).toMatch(/: --[a-z-]+: expected another file than that of --[a-z-]+, got "/);
  expect(code).toBe(2);
  expect(fs.existsSync(at('new.jsonl')) || fs.existsSync(at('new'))).toBe(false);
});

test('results of earlier runs may be replaced where the data are; what a folder is read for may not', async () => {
  const check = (name: string) => checkOutputs([{ given: '--out', file: at(name) }], [folder]);
  fs.writeFileSync(at('scores.csv'), '');
  fs.writeFileSync(at('report.html'), '');
  await expect(check('scores.csv')).resolves.toBeUndefined();
  await expect(check('report.html')).resolves.toBeUndefined();
  await expect(check('people.csv')).rejects.toThrow(UsageError);
  await expect(check('m.safetensors')).rejects.toThrow(UsageError);
  await expect(check('new.safetensors')).resolves.toBeUndefined();
});

test('a safetensors file may be converted in place', async () => {
  const before = fs.readFileSync(at('m.safetensors'));
  expect((await hpformer('convert', at('m.safetensors'), at('m.safetensors'))).code).toBe(0);
  expect(fs.readFileSync(at('m.safetensors')).equals(before)).toBe(true);
});

test('of an option given twice the last one counts', async () => {
  const twice = ['--out', at('none/a.csv'), '--out', at('taken.csv')];
  expect((await hpformer('predict', model, 'nowhere', ...twice)).err).toMatch(/taken\.csv: expected/);
});

describeUnless(withoutProgram('mkfifo'), 'pipes and devices', () => {
  test('are not replaced by a file', async () => {
    expect(spawnSync('mkfifo', [at('pipe.csv')]).status).toBe(0);
    const { code, err } = await hpformer('predict', model, 'nowhere', '--out', at('pipe.csv'));
    expect(code).toBe(1);
    expect(err).toMatch(/pipe\.csv: expected the name of a file to write, got a device or pipe \(ERR_HPFORMER_FILE\)/);
    expect(fs.statSync(at('pipe.csv')).isFIFO()).toBe(true);
  });
});
