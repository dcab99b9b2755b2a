/** `bench kernels` without its clock: every kernel on every level and device, each checked against the reference before it is timed. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { devices, kernels } from '../../src';
import { ofCeilings } from '../../src/cli/bench';
import * as checkout from '../../src/cli/benchCheckout';
import { benchKernels, cudaDevices, engineRows, nativeFamilies, wanted } from '../../src/cli/benchKernels';
import { stageCalls, stageContestants, stageRows } from '../../src/cli/benchStages';
import type { BenchRow, BenchRun } from '../../src/cli/benchTiming';
import { interleaved } from '../../src/cli/benchTiming';
import { main } from '../../src/cli/main';
import { rewriteNames } from '../../src/model/types';
import { loadAddon } from '../../src/native/load';
import { useCudaLibrary } from '../cuda/driver';
import { describeUnless, root, testUnless, withoutCudaLibrary } from '../skips';

const shape = { batch: 2, steps: 24 };
const models = ['fused model', ...rewriteNames.map((off) => `fused model without ${off}`)];

async function cli(...args: string[]) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const code = await main(['bench', ...args], { stdout, stderr });
  return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
}

const { isa, isaLevels } = loadAddon().info();
const forced = process.env.HPFORMER_ISA;
afterEach(() => {
  jest.restoreAllMocks();
  if (forced === undefined) delete process.env.HPFORMER_ISA;
  else process.env.HPFORMER_ISA = forced;
});

test('on this level: all of kernels.* and the model with each rewrite off, checked and timed', async () => {
  process.env.HPFORMER_ISA = isa;
  const rows = await benchKernels({ names: [], quick: true, shape }, false);
  expect(rows.map(({ name }) => name)).toEqual([...stageRows, ...models]);
  expect(stageRows).toHaveLength(Object.keys(kernels).length);
  for (const row of rows) {
    expect(row).toMatchObject({ device: 'cpu', isa, checked: true, ...shape });
    expect(row.error).toBeLessThanOrEqual(2e-5);
    for (const figure of [row.ms, row.low, row.flops!, row.gflops!]) expect(figure).toBeGreaterThan(0);
  }
}, 120000);

test('lower levels run in processes of their own', () => {
  // As installed: the levels' processes load the compiled package.
  const script = `require(${JSON.stringify(join(root, 'dist', 'cli', 'benchKernels.js'))})
    .benchKernels(${JSON.stringify({ names: ['unfused norm', 'tdhp'], quick: true, shape, device: 'cpu' })}, false)
    .then((rows) => console.log(JSON.stringify(rows)));`;
  const rows = JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' })) as BenchRow[];
  const levels = forced === undefined ? [isa, ...isaLevels.filter((level) => level !== isa)] : [isa];
  expect(rows.map((row) => `${row.isa} ${row.name} ${row.checked}`)).toEqual(
    levels.flatMap((level) => [`${level} fused tdhp true`, `${level} unfused norm true`]),
  );
}, 60000);

test('a kernel that computes something else is unchecked, in any of its outputs', async () => {
  const calls = await stageCalls(shape);
  const outputs = Object.values(calls).flatMap(({ expected }) => Object.values(expected));
  expect(outputs.length).toBeGreaterThan(stageRows.length);
  for (const last of [false, true]) {
    for (const { expected } of Object.values(calls)) {
      const values = Object.values(expected).at(last ? -1 : 0)!;
      values[values.length - 1]! += 1e-3;
    }
    const broken = stageContestants(calls, shape, { isa }, () => true);
    expect(broken.map(({ row }) => [row.name, row.checked])).toEqual(stageRows.map((name) => [name, false]));
    for (const { expected } of Object.values(calls)) {
      const values = Object.values(expected).at(last ? -1 : 0)!;
      values[values.length - 1]! -= 1e-3;
    }
  }
});

test('an output that nothing is expected of is no agreement', async () => {
  const calls = await stageCalls(shape);
  delete calls.head.expected.probabilities;
  const [head] = stageContestants(calls, shape, { isa }, (name) => name === 'fused head');
  expect(head!.row.checked).toBe(false);
});

test('names: any part, but fused is not unfused', () => {
  const taken = (...parts: string[]) => [...stageRows, ...models].filter((name) => wanted(parts, name));
  expect(taken('norm', 'tdhp')).toEqual(['fused tdhp', 'unfused norm']);
  expect(taken('fused').every((name) => name.startsWith('fused'))).toBe(true);
  expect(taken('unfused')).toHaveLength(8);
  expect(taken('native gemm')).toEqual([]);
  expect(taken()).toHaveLength(stageRows.length + models.length);
});

test('parts of the ceilings: of the level, and of the copy that holds the same bytes', () => {
  const ceilings = {
    levels: [
      { isa: 'baseline', fma1: 10, fma2: 20 },
      { isa: 'avx2', fma1: 100, fma2: 200 },
    ],
    copy: [
      { bytes: 1024, gbs1: 50, gbs2: 90 },
      { bytes: 65536, gbs1: 20, gbs2: 30 },
    ],
    amx: 0,
  };
  const row = { name: 'unfused x', ms: 1, low: 1, high: 1, repetitions: 1, checked: true, gflops: 40, gbs: 5 };
  expect(ofCeilings({ ...row, isa: 'avx2', bytes: 2048 }, ceilings)).toMatchObject({ percent: 40, percentCopy: 10 });
  expect(ofCeilings({ ...row, isa: 'avx2', bytes: 1e9 }, ceilings)).toMatchObject({ percent: 40, percentCopy: 25 });
  // What has its own (the C++ kernels), runs elsewhere, or was not counted, stays as it is.
  for (const other of [
    { ...row, isa: 'avx2', percent: 7 },
    { ...row, device: 'cuda:0' },
    { ...row, isa: 'avx2', gflops: 0 / 0 },
  ])
    expect(ofCeilings(other as BenchRow, ceilings)).toMatchObject(other);
});

describe('command line', () => {
  const ceilings = JSON.stringify({
    levels: [{ isa, fma1: 100, fma2: 200 }],
    copy: [{ bytes: 16384, gbs1: 50, gbs2: 90 }],
    amx: 0,
  });
  const native = JSON.stringify({
    rows: [
      {
        kernel: 'gemm 128',
        isa,
        ns: 8000,
        low: 7900,
        high: 8100,
        gflops: 98,
        percent: 94.9,
        gbs: 11,
        percentCopy: 6,
        flops: 8e5,
        bytes: 9e4,
        checked: true,
        error: 1e-6,
      },
      {
        kernel: 'gemm 128 bfloat16 tiles',
        isa,
        ns: 8000,
        low: 7900,
        high: 8100,
        gflops: 98,
        percent: null,
        gbs: 11,
        percentCopy: 6,
        flops: 8e5,
        bytes: 9e4,
        checked: true,
        error: 1e-6,
      },
    ],
  });
  const inCheckout = (yes: boolean) => {
    process.env.HPFORMER_ISA = isa;
    const asked: (readonly string[])[] = [];
    jest.spyOn(checkout, 'inCheckout').mockReturnValue(yes);
    jest.spyOn(checkout, 'ceilings').mockImplementation(async () => (yes ? JSON.parse(ceilings) : undefined));
    jest.spyOn(checkout, 'runInCheckout').mockImplementation(async (args) => {
      asked.push(args);
      return native;
    });
    return asked;
  };
  const small = ['--steps', '24', '--batch', '2', '--quick'];

  test('in a checkout: C++ kernels beside the others, percent of the ceilings, no AMX peak where there is none', async () => {
    const asked = inCheckout(true);
    const { code, out, err } = await cli('kernels', 'norm', 'gemm', ...small);
    expect([code, err]).toEqual([0, '']);
    expect(asked).toEqual([['native', 'kernels', '1', '5', 'norm', 'gemm']]);
    expect(out).toMatch(/^unfused norm +cpu .*yes$/m);
    expect(out).toMatch(/^native gemm 128 +cpu .* 94\.9 +6 +yes$/m);
    expect(out).toMatch(/^AMX bf16 peak +no AMX here$/m);
    expect(out).toMatch(/^cuda +not timed: HPFORMER_ISA asks for one level of the processor$/m);
    const run = JSON.parse((await cli('kernels', 'norm', 'gemm', ...small, '--json')).out) as BenchRun;
    const [norm, gemm, tiles] = run.rows as [BenchRow, BenchRow, BenchRow];
    expect(norm.percent).toBeCloseTo(norm.gflops!, 9);
    expect(gemm.percent).toBe(94.9);
    expect(tiles).not.toHaveProperty('percent');
    expect(run.ceilings).toEqual(JSON.parse(ceilings));
  });

  test('a kernel that is wrong is named, and the command fails', async () => {
    inCheckout(true);
    const wrong = native.replace('"checked":true', '"checked":false');
    jest.spyOn(checkout, 'runInCheckout').mockResolvedValue(wrong);
    const { code, out, err } = await cli('kernels', 'gemm', ...small);
    expect([code, err]).toEqual([1, 'hpformer bench: wrong results: native gemm 128\n']);
    expect(out).toMatch(/^native gemm 128 +cpu .* NO$/m);
  });

  test('elsewhere: the same without ceilings; a name of no kernel is wrong usage', async () => {
    const asked = inCheckout(false);
    const { code, out } = await cli('kernels', 'unfused norm', ...small, '--device', 'cpu');
    expect(code).toBe(0);
    expect(out).toMatch(/^cuda +not timed: only the processor was asked for$/m);
    expect(out).not.toContain('% of peak');
    expect(await cli('kernels', 'zzz', ...small)).toMatchObject({ code: 2, out: '' });
    expect(await cli('kernels', '--device', 'reference')).toMatchObject({ code: 2, out: '' });
    expect(asked).toEqual([]);
  });

  test('bfloat16 is judged by its own bound', async () => {
    inCheckout(false);
    const { code, out } = await cli('kernels', 'fused model', ...small, '--precision', 'bfloat16', '--json');
    expect(code).toBe(0);
    expect((JSON.parse(out) as BenchRun).rows.map(({ checked }) => checked)).toEqual(models.map(() => true));
  });
});

test('a CUDA device that is asked for and not there is an error with the reason', async () => {
  const away = jest.requireActual<typeof import('../../src/model/devices')>('../../src/model/devices');
  jest
    .spyOn(away, 'devices')
    .mockReturnValue([{ id: 'cuda:0', kind: 'cuda', available: false, reason: 'none here' } as never]);
  expect(cudaDevices({})).toEqual({ ids: [], reason: 'none here' });
  const { code, err } = await cli('kernels', '--device', 'cuda:0');
  expect([code, err]).toEqual([1, expect.stringContaining('ERR_HPFORMER_DEVICE')]);
  expect(err).toContain('none here');
});

const probe = join(root, 'build', 'test', 'native', 'hpformer_native');
describeUnless(
  existsSync(probe) ? undefined : 'the kernel probe was not built (no native tests)',
  'the C++ probe',
  () => {
    test('its kernels are of the families that `bench kernels` knows', () => {
      const { stdout } = spawnSync(probe, ['count', 'list', '0'], { encoding: 'utf8' });
      const names = stdout.trim().split('\n');
      expect(names.length).toBeGreaterThan(10);
      expect(names.filter((name) => !nativeFamilies.some((family) => name.startsWith(family)))).toEqual([]);
    });

    const tiles = isaLevels.includes('avx2') ? undefined : 'the test levels need AVX2';
    testUnless(tiles, 'a level with tiles has products on them, checked, in both precisions', () => {
      const env = { ...process.env, HPFORMER_ISA: 'wide_tiles' };
      const { stdout, status } = spawnSync(probe, ['kernels', '0.01', '1', 'tiles'], { encoding: 'utf8', env });
      const { rows } = JSON.parse(stdout) as { rows: { kernel: string; isa: string; checked: boolean }[] };
      expect(rows.map((row) => `${row.isa} ${row.kernel} ${row.checked}`)).toEqual(
        [128, 256].flatMap((n) => ['bfloat16', 'float32'].map((type) => `wide_tiles gemm ${n} ${type} tiles true`)),
      );
      expect(status).toBe(0);
    });
  },
);

describeUnless(withoutCudaLibrary(), 'on a CUDA device', () => {
  beforeAll(useCudaLibrary);

  test('all of kernels.* and the model, checked, by their own clock', async () => {
    expect(devices().find(({ id }) => id === 'cuda:0')).toMatchObject({ available: true });
    const options = { names: ['fused', 'unfused'], quick: true, shape: { batch: 1, steps: 24 }, device: 'cuda:0' };
    const rows = await engineRows({
      ...options,
      names: ['unfused', 'tdhp', 'layer', 'head', 'model without depthFirst'],
    });
    expect(rows.map(({ name }) => name)).toEqual([...stageRows, 'fused model without depthFirst']);
    for (const row of rows) {
      expect(row).toMatchObject({ device: 'cuda:0', checked: true });
      expect(row).not.toHaveProperty('isa');
      expect(row.ms).toBeGreaterThan(0);
    }
    expect(cudaDevices(options)).toEqual({ ids: ['cuda:0'] });
  }, 240000);

  test('the command names the device', async () => {
    jest.spyOn(checkout, 'inCheckout').mockReturnValue(false);
    const args = ['kernels', 'unfused norm', '--device', 'cuda:0', '--steps', '24', '--batch', '1', '--quick'];
    const { code, out, err } = await cli(...args);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^unfused norm +cuda:0 .*yes$/m);
    expect(out).toMatch(/^cuda:0 +\S.*; times without copies$/m);
  });

  test('a broken kernel is unchecked there too, and its times are those that the device gave', async () => {
    const calls = await stageCalls({ batch: 1, steps: 24 });
    calls.norm.expected.out![0]! += 1e-3;
    const [norm] = stageContestants(calls, shape, { device: 'cuda:0' }, (name) => name === 'unfused norm');
    expect(norm!.row).toMatchObject({ device: 'cuda:0', checked: false });
    const times = jest.fn((count: number) => Array.from({ length: count }, (_, i) => i + 1));
    const [row] = await interleaved([{ row: norm!.row, times }], 2, 10);
    expect(times.mock.calls).toEqual([[1], [10]]);
    expect(row).toMatchObject({ repetitions: 11, low: 2, ms: 5, high: 8 });
  });
});
