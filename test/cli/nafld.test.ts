import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';

const root = path.join(__dirname, '../..');
const data = path.join(root, 'examples/nafld');
const mortality = path.join(root, 'examples/nafld-mortality');
const outcomes = path.join(root, 'examples/nafld-outcomes');

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-nafld-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** The command as a user starts it. */
function hpformer(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  return { code: status, out: stdout, err: stderr };
}

const rows = (text: string) => {
  const [header, ...lines] = text
    .trim()
    .split('\n')
    .map((line) => line.split(','));
  return lines.map((line) => Object.fromEntries(line.map((value, i) => [header![i]!, value])));
};
const read = (...file: string[]) => fs.readFileSync(path.join(...file), 'utf8');

function worstDifference(got: Record<string, string>[], model: string): number {
  const byPatient = new Map(got.map((row) => [row.patient, row]));
  const expected = rows(read(model, 'expected.csv'));
  expect(expected).toHaveLength(200);
  const columns = Object.keys(got[0]!).filter((name) => name !== 'patient');
  return Math.max(
    ...expected.flatMap((want) =>
      columns.map((c) => Math.abs(Number(byPatient.get(want.patient)![c]) - Number(want[c]))),
    ),
  );
}

describe('hpformer predict', () => {
  test.each([
    ['nafld-mortality', 'cpu', 3e-6, ['patient', 'probability']],
    ['nafld-mortality', 'reference', 1e-9, ['patient', 'probability']],
    [
      'nafld-outcomes',
      'cpu',
      3e-6,
      [
        'patient',
        ...['death', 'htn', 'dyslipidemia', 'diabetes', 'MI', 'afib', 'heart failure', 'stroke'].map((n) => `p_${n}`),
      ],
    ],
  ] as const)('%s on %s: the expected probabilities within %d', (name, device, bound, header) => {
    const model = path.join(root, 'examples', name);
    const out = path.join(folder, 'scores.csv');
    const { code, out: stdout, err } = hpformer('predict', model, data, '--out', out, '--device', device);
    expect([code, stdout]).toEqual([0, '']);
    expect(err).toMatch(/^9059 people scored by nafld-\w+ on \w+ in .*scores\.csv\n$/);
    const text = read(out);
    expect(text.slice(0, text.indexOf('\n'))).toBe(header.join(','));
    const got = rows(text);
    expect(got).toHaveLength(9059);
    expect(worstDifference(got, model)).toBeLessThanOrEqual(bound);
    const ids = got.map((row) => Number(row.patient));
    expect(ids).toEqual([...ids].sort((a, b) => a - b));
  });

  test('JSON lines from the weights file alone, with other batches and threads: the same numbers', () => {
    const csv = path.join(folder, 'a.csv');
    const jsonl = path.join(folder, 'b.jsonl');
    expect(hpformer('predict', outcomes, data, '-o', csv, '--device', 'cpu').code).toBe(0);
    const file = path.join(outcomes, 'model.safetensors');
    const { code, out } = hpformer(
      'predict',
      file,
      data,
      '-o',
      jsonl,
      '--device',
      'cpu',
      '--batch',
      '77',
      '--threads',
      '1',
      '--json',
    );
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ model: 'nafld-outcomes', device: 'cpu', rows: 9059, out: jsonl });
    const lines = read(jsonl)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const want = rows(read(csv)).map((row) => Object.fromEntries(Object.entries(row).map(([k, v]) => [k, Number(v)])));
    expect(lines).toEqual(want);
  });

  test('outcome columns are not needed, nor looked at', () => {
    const bare = path.join(folder, 'bare');
    fs.mkdirSync(bare);
    for (const name of ['readings', 'diagnoses'])
      fs.copyFileSync(path.join(data, `${name}.csv.gz`), path.join(bare, `${name}.csv.gz`));
    const people = gunzipSync(fs.readFileSync(path.join(data, 'people.csv.gz')))
      .toString()
      .trim()
      .split('\n');
    const header = people[0]!.split(',');
    const kept = header.flatMap((name, i) => (name === 'futime' || name === 'status' || name === 'case.id' ? [] : [i]));
    fs.writeFileSync(
      path.join(bare, 'people.csv'),
      people.map((line) => kept.map((i) => line.split(',')[i]).join(',')).join('\n'),
    );
    const without = hpformer('predict', mortality, bare, '--device', 'cpu');
    const withThem = hpformer('predict', mortality, data, '--device', 'cpu');
    expect([without.code, withThem.code]).toEqual([0, 0]);
    expect(without.out).toBe(withThem.out);
  });

  test('a bad value: one line that names file, row and column; the output is not touched', () => {
    const bad = path.join(folder, 'bad');
    fs.mkdirSync(bad);
    for (const name of ['people', 'diagnoses'])
      fs.copyFileSync(path.join(data, `${name}.csv.gz`), path.join(bad, `${name}.csv.gz`));
    fs.writeFileSync(path.join(bad, 'readings.csv'), 'id,days,test,value\n1,-3,hdl,50\n17,-3,hdl,fifty\n');
    const out = path.join(folder, 'bad.csv');
    fs.writeFileSync(out, 'earlier');
    const { code, err } = hpformer('predict', mortality, bad, '--out', out);
    expect(code).toBe(1);
    expect(err).toBe(
      'hpformer predict: readings.csv: row 2, column value: expected a number, got "fifty" (ERR_HPFORMER_INPUT)\n',
    );
    expect(read(out)).toBe('earlier');
    expect(fs.readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('a plain checkpoint has no recipe', () => {
    const plain = path.join(folder, 'plain.safetensors');
    const config = path.join(mortality, 'config.json');
    expect(hpformer('convert', path.join(mortality, 'upstream.pt'), plain, '--config', config).code).toBe(0);
    const { code, err } = hpformer('predict', plain, data);
    expect(code).toBe(1);
    expect(err).toMatch(/expected a model directory or bundle .*got a plain checkpoint \(ERR_HPFORMER_CHECKPOINT\)/);
  });
});

describe('hpformer evaluate', () => {
  const published = (value: number, want: number) => expect(Math.abs(value - want)).toBeLessThanOrEqual(1e-4);

  test('nafld-mortality: the published figures to 1e-4, intervals close to the published ones', () => {
    const { code, out, err } = hpformer('evaluate', mortality, data, '--device', 'cpu', '--json');
    expect([code, err]).toEqual([0, '']);
    const got = JSON.parse(out);
    const { test: part, models } = JSON.parse(read(mortality, 'metrics.json'));
    const want = models['HPformer (this model)'];
    expect(got).toMatchObject({ part: 'test', rows: part.people, bootstrap: { samples: 1000, unit: 'matched sets' } });
    const [label] = got.labels;
    expect(label).toMatchObject({ name: 'death', rows: part.people, events: part.deaths });
    for (const [ours, theirs] of [
      ['auroc', 'AUROC'],
      ['auprc', 'AUPRC'],
      ['minSensitivityPrecision', 'Min(Se, P+)'],
    ] as const) {
      published(label[ours].value, want[theirs].value);
      // Another generator draws other samples: the ends of intervals of 1,000 samples scatter by about 0.01.
      expect(Math.abs(label[ours].low - want[theirs].low)).toBeLessThan(0.02);
      expect(Math.abs(label[ours].high - want[theirs].high)).toBeLessThan(0.02);
    }
    published(label.logLoss, want.log_loss);
    published(label.brier, want.brier);
    published(label.meanProbability, want.mean_probability);
  });

  test('nafld-outcomes: every label over those for whom it is known', () => {
    const { code, out } = hpformer('evaluate', outcomes, data, '--device', 'cpu', '--bootstrap', '0', '--json');
    expect(code).toBe(0);
    const got = JSON.parse(out);
    const want = JSON.parse(read(outcomes, 'metrics.json'));
    expect(got.labels.map((l: { name: string }) => l.name)).toEqual(Object.keys(want.test));
    for (const label of got.labels) {
      const { people, events, AUROC, AUPRC } = want.test[label.name];
      expect(label).toMatchObject({ rows: people, events });
      published(label.auroc.value, AUROC);
      published(label.auprc.value, AUPRC);
      expect(label.auroc.low).toBeUndefined();
    }
    published(got.macro.auroc, want.macro.AUROC);
  });

  test('a table for people; the same seed gives the same text', () => {
    const run = () =>
      hpformer('evaluate', mortality, data, '--device', 'cpu', '--part', 'valid', '--bootstrap', '50', '--seed', '7');
    const { code, out } = run();
    expect(code).toBe(0);
    expect(out).toMatch(
      /^nafld-mortality on cpu, part valid: 530 people; brackets: 95 % of 50 bootstrap samples of matched sets\n\nlabel /,
    );
    expect(out).toMatch(/^death +530 +42 +0\.\d{4} \[0\.\d{3}, 0\.\d{3}\]/m);
    expect(run().out).toBe(out);
  });

  test('an unknown part', () => {
    const { code, err } = hpformer('evaluate', mortality, data, '--part', 'dev');
    expect([code, err]).toEqual([2, expect.stringMatching(/--part: expected train, valid, test, all, got "dev"\n/)]);
  });
});

describe('hpformer inspect', () => {
  test('configuration, parameters, graph and plan as JSON', () => {
    const { code, out } = hpformer('inspect', mortality, '--device', 'cpu', '--batch', '32', '--steps', '48', '--json');
    expect(code).toBe(0);
    const got = JSON.parse(out);
    expect(got).toMatchObject({
      config: { hidden: 64, layers: 4 },
      parameterCount: { used: 44417 },
      device: 'cpu',
      bundle: { name: 'nafld-mortality', recipe: 'nafld', labels: ['death within 5 years of the index date'] },
      plan: { batch: 32, steps: 48, segments: { count: 4, length: 12 } },
    });
    expect(got.graph.nodes.map((node: { id: string }) => node.id)).toEqual([
      'embed',
      'tdhp',
      'layer.0',
      'layer.1',
      'layer.2',
      'layer.3',
      'readout',
      'head',
    ]);
    expect(got.plan.flops).toBeGreaterThan(0);
    expect(got.plan.flops).toBeLessThan(got.plan.unfused.flops);
  });

  test('for people, and as a flowchart', () => {
    const { out } = hpformer('inspect', outcomes, '--steps', '48');
    for (const part of [
      'parameters  44872 used',
      'stroke within 5 years',
      'hidden                64',
      '\nGraph\n',
      '\nPlan\n',
      'FLOP',
    ])
      expect(out).toContain(part);
    const chart = hpformer('inspect', outcomes, '--mermaid').out;
    expect(chart).toMatch(/^flowchart TD\n/);
    expect(chart.match(/tdhp ==>\|K_comp\| layer_/g)).toHaveLength(4);
  });

  test('a length that the segments do not divide is an error that names good ones', () => {
    const { code, err } = hpformer('inspect', mortality, '--steps', '47');
    expect([code, err]).toEqual([1, expect.stringMatching(/47.*ERR_HPFORMER_SHAPE/)]);
  });

  test('an upstream checkpoint needs what its keys cannot tell', () => {
    const file = path.join(mortality, 'upstream.pt');
    const { code, err } = hpformer('inspect', file);
    expect([code, err]).toEqual([1, expect.stringMatching(/upstream\.pt: .*segments\.steps.*ERR_HPFORMER_CONFIG/)]);
    expect(hpformer('inspect', file, '--config', path.join(mortality, 'config.json')).code).toBe(0);
  });
});

describe('hpformer doctor', () => {
  test('says what is here and why the rest is not', () => {
    const { code, out } = hpformer('doctor', '--json');
    const got = JSON.parse(out);
    expect(got.problems).toEqual([]);
    expect(code).toBe(0);
    expect(got.native.isaLevels).toContain(got.native.isa);
    expect(got.addon.path).toMatch(/\.node$/);
    const cpu = got.devices.find((d: { id: string }) => d.id === 'cpu');
    expect(cpu).toMatchObject({ available: true, reason: '' });
    for (const device of got.devices) expect(device.available || device.reason.length > 0).toBe(true);
    const text = hpformer('doctor').out;
    for (const word of [got.node, got.addon.path, 'device', 'reason', 'threads']) expect(text).toContain(word);
    // Every level is in use, at hand, or said to be missing.
    const isa = /^isa +(.*)$/m.exec(text)![1]!;
    for (const level of got.native.isaLevels) expect(isa.split(': not offered')[0]).toContain(level);
    const missing = /(?:^|; )([^;:]+): not offered by this processor and kernel$/.exec(isa);
    const levels = missing === null ? [] : missing[1]!.split(', ');
    expect(levels.filter((level) => got.native.isaLevels.includes(level))).toEqual([]);
  });

  test.each([
    ['HPFORMER_THREADS', '0', /expected a whole number from 1 to 1024, got "0"; \d+ are used$/],
    ['HPFORMER_THREADS', 'abc', /expected a whole number from 1 to 1024, got "abc"; \d+ are used$/],
    ['HPFORMER_THREADS', '5000', /expected a whole number from 1 to 1024, got "5000"; \d+ are used$/],
    ['HPFORMER_ISA', 'avx-2', /expected \w+( or \w+)* on this machine, got "avx-2"; \w+ is used$/],
  ])('%s=%s is not used: exit 1, and what is', (name, value, message) => {
    const { HPFORMER_ISA: _, HPFORMER_THREADS: __, ...env } = process.env;
    const doctor = (more: object) => {
      const args = [path.join(root, 'dist/cli/main.js'), 'doctor', '--json'];
      const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', env: { ...env, ...more } });
      return { status, ...JSON.parse(stdout) };
    };
    const { status, problems, native } = doctor({ [name]: value });
    expect([status, problems]).toEqual([1, [expect.stringMatching(message)]]);
    expect(problems[0]).toMatch(new RegExp(`^${name}: .* ${name === 'HPFORMER_ISA' ? native.isa : native.threads} `));
    const used = { HPFORMER_THREADS: '3', HPFORMER_ISA: native.isaLevels[0] };
    expect(doctor(used)).toMatchObject({ status: 0, problems: [], native: { threads: 3, isa: native.isaLevels[0] } });
    expect(doctor({ [name]: '' })).toMatchObject({ status: 0, problems: [] });
  });

  test('without a loadable addon: exit 1, one problem, and what to do', () => {
    const bare = path.join(folder, 'bare-package');
    fs.mkdirSync(bare);
    fs.cpSync(path.join(root, 'dist'), path.join(bare, 'dist'), { recursive: true });
    fs.copyFileSync(path.join(root, 'package.json'), path.join(bare, 'package.json'));
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(bare, 'node_modules'));
    const { HPFORMER_PREBUILD: _, ...env } = process.env;
    const main = path.join(bare, 'dist/cli/main.js');
    const run = spawnSync(process.execPath, [main, 'doctor'], { encoding: 'utf8', env });
    expect(run.status).toBe(1);
    expect(run.stdout).toMatch(/addon +not found/);
    expect(run.stdout).toMatch(/problem: addon: expected a binary for .*npm rebuild hpformer/);
    expect(run.stdout.match(/npm rebuild/g)).toHaveLength(1);
  });

  test('a reader that goes away is no error', () => {
    const command = `"${process.execPath}" "${path.join(root, 'dist/cli/main.js')}" predict "${mortality}" "${data}" --device cpu`;
    const run = spawnSync('bash', ['-c', `set -o pipefail; ${command} | head -n 1`], { encoding: 'utf8' });
    expect(run.stdout).toBe('patient,probability\n');
    expect(run.stderr).toBe('');
  });
});

test('an interrupted predict leaves nothing behind and an earlier file as it was', async () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-interrupt-'));
  const out = path.join(own, 'scores.csv');
  fs.writeFileSync(out, 'earlier');
  const args = ['predict', mortality, data, '--out', out];
  const child = spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args], { stdio: 'ignore' });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  while (fs.readdirSync(own).length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill('SIGINT');
  expect(await ended).toBe(130);
  expect(fs.readdirSync(own)).toEqual(['scores.csv']);
  expect(fs.readFileSync(out, 'utf8')).toBe('earlier');
  fs.rmSync(own, { recursive: true });
}, 60000);
