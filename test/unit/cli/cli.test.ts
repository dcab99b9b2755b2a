import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { commandHelp, parseCommand, UsageError } from '../../../src/cli/command';
import { compiledLevels } from '../../../src/cli/doctor';
import { evaluationTable } from '../../../src/cli/evaluate';
import { commands, main } from '../../../src/cli/main';
import { formatDuration, Progress } from '../../../src/cli/progress';
import { ScoreWriter, scoreFormat } from '../../../src/cli/scoreFile';
import { formatPairs, formatTable } from '../../../src/cli/table';
import { evaluateLabels, predictLabelled, scoreBatches } from '../../../src/data/evaluation';
import type { LabelledBatch } from '../../../src/data/recipes';
import type { Feeds } from '../../../src/model/types';
import { Tensor } from '../../../src/tensor/tensor';
import { hpformer, Sink } from './run';

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-cli-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

describe('command line', () => {
  test('the overview names every command, on request or in answer to nothing', async () => {
    for (const [args, code] of [
      [['--help'], 0],
      [['-h'], 0],
      [['help'], 0],
      [[], 2],
    ] as const) {
      const got = await hpformer(...args);
      expect(got.code).toBe(code);
      const text = code === 0 ? got.out : got.err;
      expect(code === 0 ? got.err : got.out).toBe('');
      for (const name of Object.keys(commands)) expect(text).toMatch(new RegExp(`^  ${name} +[A-Z]`, 'm'));
      expect(text).toContain('Exit codes: 0 done, 1 failed, 2 wrong usage.');
    }
  });

  test.each(Object.entries(commands))(
    '%s --help describes every option in aligned lines of at most 120 columns',
    async (name, command) => {
      const { code, out, err } = await hpformer(name, '--help');
      expect([code, err]).toEqual([0, '']);
      expect(out.startsWith(`Usage: hpformer ${name} `)).toBe(true);
      expect(out).toContain(command.summary);
      for (const [option, { help }] of Object.entries(command.options)) {
        expect(out).toMatch(new RegExp(`^  (-\\w, )?--${option}( <\\w+>)? `, 'm'));
        expect(out).toContain(help);
      }
      for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
      expect(commandHelp(name, command)).toBe(out);
    },
  );

  test('doctor knows every level that the kernels are compiled for', () => {
    const cmake = fs.readFileSync(path.join(__dirname, '../../../binding/cpu/isa/isa.cmake'), 'utf8');
    const made = [...cmake.matchAll(/^ +hpformer_isa\((\w+)/gm)].map((match) => match[1]!);
    // `wide` levels exist in test builds only.
    expect(Object.values(compiledLevels).flat().sort()).toEqual(
      made.filter((level) => !level.startsWith('wide')).sort(),
    );
  });

  test('help <command> is <command> --help', async () => {
    expect(await hpformer('help', 'predict')).toEqual(await hpformer('predict', '--help'));
    expect((await hpformer('help', 'bogus')).code).toBe(2);
  });

  test('--version is the package version', async () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(__dirname, '../../../package.json'), 'utf8'));
    expect(await hpformer('--version')).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });

  test.each<[string[], RegExp]>([
    [['bogus'], /expected a command \(predict, .*got "bogus"/],
    [['constructor'], /expected a command .*got "constructor"/],
    [['predict'], /expected arguments <model> <data>\.\.\., got none/],
    [['predict', 'model'], /expected arguments <model> <data>\.\.\., got 1/],
    [['inspect', 'a', 'b'], /expected arguments <model>, got 2/],
    [['predict', 'a', 'b', '--bogus'], /Unknown option '--bogus'/],
    [['predict', 'a', 'b', '--out'], /'-o, --out <value>' argument missing/],
    [['predict', 'a', 'b', '--out', 'x.txt'], /--out: expected a name that ends in \.csv or \.jsonl, got "x\.txt"/],
    [['predict', 'a', 'b', '--json'], /--json: expected --out/],
    [['predict', 'a', 'b', '--batch', '0'], /--batch: expected a whole number from 1 to 1048576, got "0"/],
    [['predict', 'a', 'b', '--threads', 'many'], /--threads: expected a whole number from 1 to 1024, got "many"/],
    [['predict', 'a', 'b', '--threads', '-1'], /: --threads: expected a value; .* dash is written --threads=-…\n/],
    [['predict', 'a', 'b', '--threads=-1'], /--threads: expected a whole number from 1 to 1024, got "-1"/],
    [['predict', 'a', 'b', '-o', '-x'], /: --out: expected a value; .* dash is written --out=-…\n/],
    [['predict', 'a', 'b', '--batch', '1e9'], /--batch: expected a whole number from 1 to 1048576, got "1e9"/],
    [['predict', 'a', 'b', '--device', 'tpu'], /--device: expected auto, cpu, .*got "tpu"/],
    [['predict', 'a', 'b', '--precision', 'float16'], /--precision: expected float32, bfloat16, got "float16"/],
    [['evaluate', 'a', 'b', '--bootstrap', '-1'], /--bootstrap/],
    [['inspect', 'a', '--batch', '3'], /expected --steps <L> with them/],
    [['inspect', 'a', '--json', '--mermaid'], /expected one of them, got both/],
    [['convert', 'a.pt', 'b.bin'], /ends in \.safetensors or \.onnx, or --to <format> with it, got "b\.bin"/],
    [['doctor', 'x'], /expected no arguments, got 1/],
    [['evaluate', 'a', 'b', '--part', 'some'], /--part: expected train, valid, test, all, got "some"/],
    [['evaluate', 'a', 'b', '--save-calibration', 'c.json'], /--save-calibration: expected --calibrate <name> with it/],
    ...['arrays', 'normalizer', 'bundle', 'extract', 'synthetic'].flatMap((action): [string[], RegExp][] =>
      [
        ['task', 'in-hospital-mortality, decompensation, length-of-stay, phenotyping', 'foo'],
        ['fill', 'previous, next, normal, zero', 'foo'],
        ['start', 'zero, relative', 'foo'],
        ['compat', 'published, corrected', 'foo'],
        ['columns', 'all, numeric', 'foo'],
        ['step', 'a positive number', '0'],
        ['step', 'a positive number', 'Infinity'],
        ['hours', 'a number from 1 to 10000', '0.5'],
        ['hours', 'a number from 1 to 10000', '1e9'],
        ['hours', 'a number from 1 to 10000', ' '],
        ['steps', 'a whole number from 1 to 1000000', '1e9'],
        ['workers', 'a whole number from 0 to 64', '65'],
      ].map(([name, expected, value]) => [
        ['prepare', action, 'a', '--out', 'x/y', '--normalizer', 'none.json', `--${name}`, value!],
        new RegExp(`--${name}: expected ${expected}, got "${value}"`),
      ]),
    ),
    [
      ['prepare', 'arrays', 'a', '--out', 'x/y', '--labels', 'a,b'],
      /--labels: expected prepare bundle with it, got arrays\n/,
    ],
    [
      ['prepare', 'normalizer', 'a', '--out', 'x', '--normalizer', 'b'],
      /--normalizer: expected prepare arrays or bundle with it, got normalizer\n/,
    ],
    [['prepare', 'bundle', 'a', '--out', 'x', '--lenient'], /--lenient: expected prepare arrays or normalizer with it/],
    [['prepare', 'extract', 'a', '--out', 'x', '--count', '3'], /--count: expected prepare synthetic with it, got ext/],
    [['prepare', 'synthetic', '--out', 'x', '--no-masks'], /--no-masks: expected prepare arrays or normalizer or bun/],
    [['predict', 'a', 'b', '--record-features'], /--record-features: expected --record <file> with it/],
    [['convert', 'a.pt', 'b.safetensors', '--steps', '48'], /--steps: expected an output in ONNX with it/],
    [['convert', 'a.pt', 'b.onnx', '--bundle', 'c.json'], /--bundle: expected an output in safetensors with it/],
  ])('%j is wrong usage', async (args, message) => {
    const { code, out, err } = await hpformer(...args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });

  test.each<[string[], RegExp]>([
    [
      ['predict', 'nowhere', 'data'],
      /hpformer predict: nowhere: expected a model directory or file, got nothing there \(ERR_HPFORMER_FILE\)\n$/,
    ],
    [['inspect', 'nowhere'], /hpformer inspect: nowhere: .*\(ERR_HPFORMER_FILE\)\n$/],
    [['convert', 'nowhere.pt', 'x.safetensors'], /hpformer convert: nowhere\.pt: .*\(ERR_HPFORMER_FILE\)\n$/],
    [
      ['convert', 'nowhere.pt', 'x.safetensors', '-c', 'none.json'],
      /none\.json: cannot be read \(ENOENT: no such file or directory\) \(ERR_HPFORMER_FILE\)\n$/,
    ],
  ])('%j fails with one line and its code', async (args, message) => {
    const { code, out, err } = await hpformer(...args);
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(message);
    expect(err.trim().split('\n')).toHaveLength(1);
  });

  test.each<[string, string[]]>([
    ['prepare normalizer', ['prepare', 'normalizer', 'STAYS', '--out', 'FILE/n.json']],
    ['prepare synthetic', ['prepare', 'synthetic', '--count', '1', '--out', 'FILE/more']],
    ['prepare arrays', ['prepare', 'arrays', 'STAYS', '--out', 'FILE/more']],
    ['prepare bundle', ['prepare', 'bundle', 'FILE', '--task', 'phenotyping', '--normalizer', 'FILE', '--out', 'b']],
    ['inspect', ['inspect', 'FILE']],
    ['predict to standard output', ['predict', 'MODEL', 'FOLDER']],
    ['inspect of a folder', ['inspect', 'FOLDER']],
    ['predict', ['predict', 'MODEL', 'DATA', '--out', 'FILE/scores.csv']],
    ['evaluate --report', ['evaluate', 'MODEL', 'DATA', '--bootstrap', '0', '--report', 'FILE/r.html']],
  ])('%s with a place that cannot be used says so in one line', async (_, args) => {
    const examples = path.join(__dirname, '../../../examples');
    const places: Record<string, string> = {
      STAYS: path.join(folder, 'stays'),
      FILE: path.join(folder, 'file.txt'),
      FOLDER: folder,
      MODEL: path.join(examples, 'nafld-mortality'),
      DATA: path.join(examples, 'nafld'),
    };
    fs.writeFileSync(places.FILE!, 'text');
    expect((await hpformer('prepare', 'synthetic', '--count', '1', '--out', places.STAYS!)).code).toBe(0);
    const { code, out, err } = await hpformer(...args.map((arg) => arg.replace(/^[A-Z]+/, (name) => places[name]!)));
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(/^hpformer \w+: .*\(ERR_HPFORMER_FILE\)\n$/);
    expect(err).not.toMatch(/, (open|stat|mkdir) |checkpoint:/);
    expect(fs.readdirSync(folder).sort()).toEqual(['file.txt', 'stays']);
  });

  test('with --json an error is JSON too', async () => {
    const { code, err } = await hpformer('inspect', 'nowhere', '--json');
    expect(code).toBe(1);
    expect(JSON.parse(err)).toEqual({
      error: { code: 'ERR_HPFORMER_FILE', message: expect.stringMatching(/^nowhere: /) },
    });
    expect(JSON.parse((await hpformer('inspect', '--json')).err)).toMatchObject({ error: { code: 'USAGE' } });
    for (const [args, got] of [
      [['--json'], /expected a command .*, got none$/],
      [['foo', '--json'], /expected a command .*, got "foo"$/],
      [['--json', 'foo'], /expected a command .*, got "foo"$/],
      [['bench', 'foo', '--json'], /expected kernels, .*, got "foo"$/],
      [['--json', 'inspect', '--', '--json', 'x'], /expected arguments <model>, got 2$/],
    ] as const) {
      const { code, out, err } = await hpformer(...args);
      expect([code, out]).toEqual([2, '']);
      expect(JSON.parse(err)).toEqual({ error: { code: 'USAGE', message: expect.stringMatching(got) } });
    }
    expect((await hpformer('--help')).out).toContain('or USAGE for wrong usage');
    // After a double dash it is a name.
    expect((await hpformer('inspect', '--', '--json')).err).toMatch(/^hpformer inspect: --json: expected a model/);
  });

  test('--json may stand before the command', async () => {
    const { code, out } = await hpformer('--json', 'doctor');
    expect([code, JSON.parse(out)]).toEqual([0, expect.objectContaining({ node: process.version })]);
  });

  test('results that cannot be written are an error; a reader that went away is none; notes fail nothing', async () => {
    const failing = (code: string) =>
      new Writable({
        write: (_, __, done) => done(Object.assign(new Error(`${code}: why, write`), { code, syscall: 'write' })),
      }).on('error', () => undefined);
    const run = async (stdout: Writable, stderr: Writable, ...args: string[]) => ({
      code: await main(args, { stdout, stderr }),
      text: stderr instanceof Sink ? stderr.text : '',
    });
    const text = 'stdout: cannot be written (ENOSPC: why)';
    expect(await run(failing('ENOSPC'), new Sink(), '--help')).toEqual({
      code: 1,
      text: `hpformer: ${text} (ERR_HPFORMER_FILE)\n`,
    });
    expect(await run(failing('ENOSPC'), new Sink(), 'doctor', '--json')).toEqual({
      code: 1,
      text: `${JSON.stringify({ error: { code: 'ERR_HPFORMER_FILE', message: text } })}\n`,
    });
    expect(await run(failing('EPIPE'), new Sink(), 'doctor')).toEqual({ code: 0, text: '' });
    for (const args of [[], ['foo'], ['bench', 'foo'], ['predict', '--json']])
      expect((await run(new Sink(), failing('EPIPE'), ...args)).code).toBe(2);
  });

  test('options may stand anywhere; a double dash ends them', () => {
    const parsed = parseCommand(commands.predict!, ['--out=a.csv', 'model', '--threads', '2', '--', '--data']);
    expect(parsed).toEqual({ positionals: ['model', '--data'], values: { out: 'a.csv', threads: '2' } });
    expect(() => parseCommand(commands.predict!, ['--json=yes', 'a', 'b'])).toThrow(UsageError);
  });

  test('convert: an upstream checkpoint becomes the bundled weights, and a bundle stays one', async () => {
    const model = path.join(__dirname, '../../../examples/nafld-mortality');
    for (const name of ['config.json', 'features.json', 'bundle.json'])
      fs.copyFileSync(path.join(model, name), path.join(folder, name));
    const out = path.join(folder, 'model.safetensors');
    const made = [
      '--config',
      path.join(folder, 'config.json'),
      '--bundle',
      path.join(folder, 'bundle.json'),
      '--manifest',
      '--json',
    ];
    const first = await hpformer('convert', path.join(model, 'upstream.pt'), out, ...made);
    expect([first.code, first.err]).toEqual([0, '']);
    expect(JSON.parse(first.out)).toMatchObject({ out, parameterCount: { used: 44417 }, config: { hidden: 64 } });
    for (const name of ['model.safetensors', 'hpformer.json']) {
      expect(fs.readFileSync(path.join(folder, name)).equals(fs.readFileSync(path.join(model, name)))).toBe(true);
    }
    const again = path.join(folder, 'again.safetensors');
    expect((await hpformer('convert', out, again)).code).toBe(0);
    expect(fs.readFileSync(again).equals(fs.readFileSync(out))).toBe(true);
    const plain = path.join(folder, 'plain.safetensors');
    const { code, err } = await hpformer(
      'convert',
      path.join(model, 'upstream.pt'),
      plain,
      '-c',
      path.join(folder, 'config.json'),
    );
    expect([code, err]).toEqual([
      0,
      expect.stringMatching(/plain\.safetensors: 34 tensors, 44417 parameters, \d+ bytes\n$/),
    ]);
    expect(fs.statSync(plain).size).toBeLessThan(fs.statSync(out).size);
  });
});

describe('tables', () => {
  test('numbers right, text left, nothing after the last cell', () => {
    const text = formatTable(
      ['label', 'n', 'AUROC'],
      [
        ['death', '1054', '0.8449 [0.803, 0.883]'],
        ['MI', '9', '–'],
      ],
    );
    expect(text).toBe(
      [
        'label     n                  AUROC',
        '-----  ----  ---------------------',
        'death  1054  0.8449 [0.803, 0.883]',
        'MI        9                      –',
        '',
      ].join('\n'),
    );
    expect(
      formatPairs([
        ['a', '1'],
        ['long name', ''],
        ['b', 'x'],
      ]),
    ).toBe('a          1\nlong name\nb          x\n');
  });

  test('an evaluation of several labels ends with the mean AUROC', () => {
    const base = { rows: 4, events: 2, logLoss: 0.5, brier: 0.25, meanProbability: 0.5 };
    const figure = (value: number) => ({ value });
    const label = (name: string, auroc: number) => ({
      ...base,
      name,
      auroc: { value: auroc, low: auroc - 0.1, high: auroc + 0.1 },
      auprc: figure(0.5),
      minSensitivityPrecision: figure(Number.NaN),
    });
    const lines = evaluationTable([label('a', 0.7), label('heart failure', 0.8)], 'people').split('\n');
    expect(lines[2]).toMatch(/^a +4 +2 +0\.7000 \[0\.600, 0\.800\] +0\.5000 +– +0\.5000 +0\.2500$/);
    expect(lines[4]).toMatch(/^mean +0\.7500$/);
  });
});

describe('progress', () => {
  test('durations', () => {
    expect([0, 59.4, 60, 200, 3600, 7500].map(formatDuration)).toEqual([
      '0 s',
      '59 s',
      '1 min 00 s',
      '3 min 20 s',
      '1 h 00 min',
      '2 h 05 min',
    ]);
  });

  test('on a terminal: count, share, rate and time left, one line rewritten', () => {
    const sink = new Sink();
    sink.isTTY = true;
    let time = 0;
    const progress = new Progress(sink, 'people', () => time);
    time = 2000;
    progress.read(25, 100);
    progress.add(500);
    time = 2050;
    progress.add(1); // too soon for another line
    expect(sink.text).toBe('\r\x1b[K500 people (25 %), 250/s, 6 s left');
    time = 4000;
    expect(progress.end()).toEqual({ rows: 501, seconds: 4 });
    expect(sink.text.endsWith('\r\x1b[K')).toBe(true);
  });

  test('elsewhere: silent', () => {
    const sink = new Sink();
    const progress = new Progress(sink, 'people');
    progress.add(3);
    progress.end();
    expect(sink.text).toBe('');
  });
});

describe('score files', () => {
  const write = async (file: string, double = false) => {
    const writer = new ScoreWriter(file, scoreFormat(file), 'patient', ['p_a', 'p_b'], double);
    await writer.begin();
    await writer.rows([7, 'x'], Float32Array.of(0.1, 0.25, 1e-9, 1));
    await writer.rows([], []);
    await writer.end();
    return fs.readFileSync(file, 'utf8');
  };

  test('CSV and JSON lines; nine digits give each float32 back', async () => {
    expect(await write(path.join(folder, 's.csv'))).toBe('patient,p_a,p_b\n7,0.100000001,0.25\nx,9.99999972e-10,1\n');
    const rows = (await write(path.join(folder, 's.jsonl')))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows).toEqual([
      { patient: 7, p_a: 0.100000001, p_b: 0.25 },
      { patient: 'x', p_a: 9.99999972e-10, p_b: 1 },
    ]);
    expect(rows.map((row) => Math.fround(row.p_a))).toEqual([Math.fround(0.1), Math.fround(1e-9)]);
    expect(await write(path.join(folder, 'd.csv'), true)).toContain(`7,${Math.fround(0.1)},0.25`);
    expect(fs.readdirSync(folder).sort()).toEqual(['d.csv', 's.csv', 's.jsonl']);
  });

  test('ids and names with commas, quotes or line ends stay one field', async () => {
    const file = path.join(folder, 's.csv');
    const writer = new ScoreWriter(file, 'csv', 'patient', ['p_heart, failure', 'p_b'], false);
    await writer.rows(['a,"b"', 'c\nd'], Float32Array.of(0.5, 1, 0.25, 0));
    await writer.end();
    expect(fs.readFileSync(file, 'utf8')).toBe('patient,"p_heart, failure",p_b\n"a,""b""",0.5,1\n"c\nd",0.25,0\n');
  });

  test('given up, it leaves an earlier file and nothing else', async () => {
    const file = path.join(folder, 's.csv');
    fs.writeFileSync(file, 'earlier');
    const writer = new ScoreWriter(file, 'csv', 'id', ['p'], false);
    await writer.begin();
    await writer.abandon();
    expect(fs.readFileSync(file, 'utf8')).toBe('earlier');
    expect(fs.readdirSync(folder)).toEqual(['s.csv']);
  });

  test('a folder that is not there is an error that names the file', async () => {
    await expect(write(path.join(folder, 'none', 's.csv'))).rejects.toMatchObject({
      code: 'ERR_HPFORMER_FILE',
      message: expect.stringMatching(/s\.csv: cannot be written \(ENOENT/),
    });
    // Rows may come when the stream has long been given up: the cause stays the first one.
    const file = path.join(folder, 'none', 's.csv');
    const writer = new ScoreWriter(file, 'csv', 'id', ['p'], false);
    await new Promise((done) => setTimeout(done, 50));
    await expect(writer.rows(['a'], [0.5])).rejects.toMatchObject({
      message: `${file}: cannot be written (ENOENT: no such file or directory)`,
    });
  });
});

describe('evaluation', () => {
  /** Answers with the feed itself, two labels a row. */
  const echo = {
    async *stream(source: AsyncIterable<Feeds>) {
      for await (const { features } of source) {
        const { data, dims } = features as Tensor<'float32'>;
        yield { probabilities: new Tensor('float32', data, [dims[0]!, 2]) };
      }
    },
  };
  const batch = (ids: number[], scores: number[], labels: (0 | 1 | undefined)[][]): LabelledBatch => ({
    ids,
    feeds: { features: new Tensor('float32', Float32Array.from(scores), [ids.length, 2]) },
    labels,
    groups: ids.map((id) => id % 2),
  });
  async function* batches() {
    yield batch(
      [1, 2],
      [0.9, 0.5, 0.2, 0.5],
      [
        [1, 0],
        [0, undefined],
      ],
    );
    yield batch([3], [0.4, 0.5], [[undefined, 0]]);
  }

  test('scores stay with their rows; unknown labels are left out; a label of one class has no ranking figures', async () => {
    const seen: [number[], number[]][] = [];
    for await (const scored of scoreBatches(echo, batches()))
      seen.push([scored.ids as number[], Array.from(scored.probabilities)]);
    expect(seen.map(([ids]) => ids)).toEqual([[1, 2], [3]]);
    const predictions = await predictLabelled(echo, batches(), 2);
    expect(predictions.ids).toEqual([1, 2, 3]);
    const [a, b] = evaluateLabels(predictions, ['a', 'b'], { samples: 50, seed: 1 });
    expect(a).toMatchObject({ name: 'a', rows: 2, events: 1, auroc: { value: 1, low: 1, high: 1 } });
    expect(a!.brier).toBeCloseTo((0.1 ** 2 + 0.2 ** 2) / 2, 6);
    expect(a!.logLoss).toBeCloseTo(-(Math.log(0.9) + Math.log(0.8)) / 2, 6);
    expect(b).toMatchObject({ rows: 2, events: 0 });
    expect(b!.auroc.value).toBeNaN();
    expect(evaluateLabels(predictions, ['a', 'b'], { samples: 0, seed: 1 })[0]!.auroc).toEqual({ value: 1 });
  });

  test('nothing to evaluate is an error', () => {
    const nothing = { ids: [], groups: [], labels: [[]], scores: [new Float64Array(0)] };
    expect(() => evaluateLabels(nothing, ['a'], { samples: 0, seed: 1 })).toThrow(
      /expected at least one row with a known outcome/,
    );
  });
});
