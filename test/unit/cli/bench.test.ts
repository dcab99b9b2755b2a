/** `hpformer bench` in this process, short: what it prints, the page it writes, and what it says where there is no checkout. */
import childProcess, { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as checkout from '../../../src/cli/benchCheckout';
import { hpformer } from './run';

const bench = (...args: string[]) => hpformer('bench', ...args);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-bench-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => jest.restoreAllMocks());

test('model: a table, the figures of the run, and a page that stands alone', async () => {
  const html = join(folder, 'model.html');
  const { code, out, err } = await bench(
    'model',
    'mortality',
    '--steps',
    '8',
    '--quick',
    '--device',
    'cpu',
    '--html',
    html,
  );
  expect([code, err]).toEqual([0, '']);
  expect(out).toMatch(/^name +isa +ms +low +high +p99 +per s +GFLOP\/s +checked$/m);
  expect(out).toMatch(/^run batch 8 .* yes$/m);
  expect(out).toMatch(/^parameters +\d+$/m);
  expect(out).toMatch(/^peak memory that the first run of \d+ adds, MB +[\d.]+$/m);
  const page = readFileSync(html, 'utf8');
  expect(page).toContain('<title>hpformer bench model</title>');
  expect(page).toContain('Sequences per second');
});

test('scaling: one row a length, time and memory drawn by length', () => {
  const html = join(folder, 'scaling.html');
  // As installed: it starts processes of its own from the compiled package.
  const main = join(__dirname, '../../../dist/cli/main.js');
  const args = [main, 'bench', 'scaling', '--steps', '2048', '--quick', '--device', 'cpu', '--html', html];
  const out = execFileSync(process.execPath, args, { encoding: 'utf8' });
  expect(out.match(/^L=\d+/gm)).toEqual(['L=64', 'L=128', 'L=256', 'L=512', 'L=1024', 'L=2048']);
  expect(out).toMatch(/^exponent of time from L = 1024 on +[\d.-]+$/m);
  const page = readFileSync(html, 'utf8');
  expect(page).toContain('Time by length');
}, 240000);

test('attention in a checkout: the rows as they came, and failure where one was wrong', async () => {
  const rows = [
    { system: 'HPformer', steps: 64, ms: 1.5, bytes: 12345678, flops: 9, parametersPerLayer: 5, checked: true },
    { system: 'other', steps: 64, ms: 3, bytes: 7, flops: 9, parametersPerLayer: 5, checked: true },
  ];
  const asked: (readonly string[])[] = [];
  jest.spyOn(checkout, 'inCheckout').mockReturnValue(true);
  jest.spyOn(checkout, 'runInCheckout').mockImplementation(async (args) => {
    asked.push(args);
    return JSON.stringify({ rows });
  });
  const html = join(folder, 'attention.html');
  const text = await bench('attention', '--steps', '64', '--threads', '2', '--html', html);
  expect(text).toMatchObject({ code: 0, err: '' });
  expect(text.out).toMatch(/^HPformer +64 +1\.5 +11\.8 +0\.000009 +5 +yes$/m);
  expect(readFileSync(html, 'utf8')).toContain('Attentions at L = 64');
  const json = await bench('attention', '--quick', '--json');
  expect(JSON.parse(json.out)).toMatchObject({ bench: 'attention', machine: { platform: expect.any(String) }, rows });
  expect(asked).toEqual([
    ['attention', '--steps', '64', '--rounds', '5', '--threads', '2'],
    ['attention', '--steps', '1024', '--rounds', '2'],
  ]);
  Object.assign(rows[1]!, { checked: false, checkedSteps: 32 });
  const shorter = await bench('attention');
  expect(shorter.code).toBe(0);
  expect(shorter.out).toMatch(/^other .* at 32$/m);
  Object.assign(rows[1]!, { checkedSteps: 0 });
  expect(await bench('attention')).toMatchObject({ code: 1, out: expect.stringMatching(/^other .* NO$/m) });
});

test('attention without a checkout says that it needs one', async () => {
  jest.spyOn(checkout, 'inCheckout').mockReturnValue(false);
  const { code, out, err } = await bench('attention');
  expect([code, out]).toEqual([2, '']);
  expect(err).toMatch(/needs a checkout of the project/);
  expect(await checkout.ceilings()).toBeUndefined();
});

test('a task of bench/ that fails is an error with its exit code', async () => {
  await expect(checkout.runInCheckout(['nonsense'])).rejects.toMatchObject({
    code: 'ERR_HPFORMER_FILE',
    message: 'bench/run.cjs nonsense: expected exit code 0, got 2',
  });
});

test('a task of bench/ that succeeds gives what it printed', async () => {
  expect(checkout.inCheckout()).toBe(true);
  const start = childProcess.spawn;
  const asked: string[][] = [];
  jest.spyOn(childProcess, 'spawn').mockImplementation(((program: string, args: string[], options: object) => {
    asked.push(args.slice(1));
    return start(program, ['-e', 'console.log("{}")'], options);
  }) as never);
  expect(await checkout.runInCheckout(['native', 'ceilings'])).toBe('{}\n');
  expect(await checkout.ceilings()).toEqual({});
  expect(asked).toEqual([
    ['native', 'ceilings'],
    ['native', 'ceilings'],
  ]);
});

test('more than one model, or none of a name, is wrong usage', async () => {
  for (const args of [['model'], ['model', 'text', 'image'], ['compare'], ['everything']]) {
    const { code, out, err } = await bench(...args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(/^hpformer bench: .*expected/);
  }
});
