/** `hpformer bench` without its clock: comparison, statistics, page, command line, and that checks precede timings. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { presets } from '../../src';
import { benchPage, ofCeilings } from '../../src/cli/bench';
import { compareRuns } from '../../src/cli/benchCompare';
import { bars, curves, roofline } from '../../src/cli/benchHtml';
import { beyondBound, feedsOf, growth, measureMemory } from '../../src/cli/benchModel';
import {
  type BenchRow,
  type BenchRun,
  errorOf,
  fittedExponent,
  interleaved,
  isWrong,
  newRun,
  outputsError,
  rotating,
} from '../../src/cli/benchTiming';
import { main } from '../../src/cli/main';
import { seed } from '../seed';
import { root } from '../skips';

const row = (name: string, ms: number, spread = 0.01): BenchRow => ({
  name,
  ms,
  low: ms * (1 - spread),
  high: ms * (1 + spread),
  repetitions: 9,
  checked: true,
});

async function cli(...args: string[]) {
  const collect = () => {
    const stream = new PassThrough();
    const chunks: string[] = [];
    stream.on('data', (chunk) => chunks.push(String(chunk)));
    return { stream, text: () => chunks.join('') };
  };
  const [stdout, stderr] = [collect(), collect()];
  const code = await main(args, { stdout: stdout.stream, stderr: stderr.stream });
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}

describe('compare', () => {
  const before = newRun('kernels', [row('a', 2), row('b', 1), row('c', 1), row('d', 1, 0.5), row('gone', 1)]);
  const after = newRun('kernels', [row('a', 1), row('b', 2), row('c', 1.01), row('d', 1.4, 0.5), row('new', 1)]);

  test('says what changed beyond noise', () => {
    const verdicts = Object.fromEntries(compareRuns(before, after).map(({ name, verdict }) => [name, verdict]));
    expect(verdicts).toEqual({
      a: 'faster',
      b: 'slower',
      c: 'same',
      d: 'same',
      gone: 'only before',
      new: 'only after',
    });
  });

  test('a run never differs from itself, and swapping the runs swaps the verdicts', () => {
    const rows = fc.array(
      fc.tuple(fc.double({ min: 1e-3, max: 1e3, noNaN: true }), fc.double({ min: 1e-3, max: 1e3, noNaN: true })),
    );
    const opposite: Record<string, string> = { faster: 'slower', slower: 'faster', same: 'same' };
    fc.assert(
      fc.property(rows, (pairs) => {
        const a = newRun(
          'model',
          pairs.map(([x], i) => row(String(i), x)),
        );
        const b = newRun(
          'model',
          pairs.map(([, y], i) => row(String(i), y)),
        );
        expect(compareRuns(a, a).every(({ verdict }) => verdict === 'same')).toBe(true);
        const back = compareRuns(b, a);
        expect(back.map(({ verdict }) => verdict)).toEqual(compareRuns(a, b).map(({ verdict }) => opposite[verdict]));
      }),
      { seed },
    );
  });

  test('rows of one kernel at two ISA levels are two rows', () => {
    const levels = (a: number, b: number) =>
      newRun('kernels', [
        { ...row('gemm', a), isa: 'baseline' },
        { ...row('gemm', b), isa: 'avx2' },
      ]);
    const changes = compareRuns(levels(2, 1), levels(2, 2));
    expect(changes.map(({ name, verdict }) => [name, verdict])).toEqual([
      ['gemm (baseline)', 'same'],
      ['gemm (avx2)', 'slower'],
    ]);
  });

  test('on the command line', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hpformer-bench-'));
    try {
      const files = [before, after].map((run, i) => {
        const file = join(folder, `${i}.json`);
        writeFileSync(file, JSON.stringify(run));
        return file;
      }) as [string, string];
      const { code, stdout } = await cli('bench', 'compare', ...files);
      expect(code).toBe(0);
      expect(stdout).toMatch(/^b +1 +2 +0\.500 +slower$/m);
      const json = JSON.parse((await cli('bench', 'compare', ...files, '--json')).stdout);
      expect(json.changes).toHaveLength(6);
      writeFileSync(files[1], '{"rows":[{"name":"a","ms":0}]}');
      const bad = await cli('bench', 'compare', ...files);
      expect([bad.code, bad.stderr.includes('ERR_HPFORMER_FILE')]).toEqual([1, true]);
      writeFileSync(files[1], 'not JSON');
      expect((await cli('bench', 'compare', ...files)).stderr).toContain('expected a run saved with bench --json');
      writeFileSync(files[1], JSON.stringify({ ...after, machine: { ...after.machine, cpu: 'another' } }));
      expect(await cli('bench', 'compare', ...files)).toMatchObject({
        code: 0,
        stderr: 'hpformer bench: the two runs are from different processors\n',
      });
      writeFileSync(files[1], JSON.stringify({ ...after, bench: 'model' }));
      expect((await cli('bench', 'compare', ...files)).stderr).toContain('expected two runs of one bench');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

test("attention's rows are compared by system and length", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-bench-'));
  try {
    const save = (name: string, ms: number) => {
      const rows = [1024, 2048].map((steps) => ({ system: 'linear', steps, ms, low: 0.99 * ms, high: 1.01 * ms }));
      writeFileSync(join(folder, name), JSON.stringify({ ...newRun('attention', []), rows }));
      return join(folder, name);
    };
    const { code, stdout } = await cli('bench', 'compare', save('a.json', 2), save('b.json', 1));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^linear at L=1024 +2 +1 +2\.000 +faster$/m);
    expect(stdout).toMatch(/^linear at L=2048 +2 +1 +2\.000 +faster$/m);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('caches are rotated: copies of the input in turn, at least two, at most eight', () => {
  const seen: number[][] = [];
  const take = (input: number[]) => seen.push(input);
  for (const [bytes, count] of [
    [1, 8],
    [2 ** 23, 4],
    [2 ** 30, 2],
  ] as const) {
    seen.length = 0;
    const input = [1];
    const call = rotating(take, input, (from) => [...from], bytes);
    for (let i = 0; i < 16; i++) call();
    expect(new Set(seen).size).toBe(count);
    expect(seen[0]).toBe(input);
    expect(seen[count]).toBe(input);
  }
});

describe('statistics', () => {
  test('a power law gives its exponent', () => {
    for (const power of [1, 1.1, 2]) {
      const points = [64, 256, 1024, 65536].map((x) => [x, 3 * x ** power] as const);
      expect(fittedExponent(points)).toBeCloseTo(power, 10);
    }
  });

  test('an error is relative, and NaN or another length never passes', () => {
    expect(errorOf([1, 2], [1, 2])).toBe(0);
    expect(errorOf([1e4 + 1, 1e4], [1e4, 1e4])).toBeCloseTo(1e-4, 8);
    for (const got of [[Number.NaN, 2], [1], [1, Number.NaN], []]) expect(errorOf(got, [1, 2]) <= 1e9).toBe(false);
  });

  test('of several outputs the worst counts, and a missing one is NaN', () => {
    const of = (...data: number[]) => ({ data });
    expect(outputsError({ a: of(1), b: of(2.5) }, { a: [1], b: [2] })).toBe(0.25);
    expect(outputsError({ a: of(1) }, { a: [1], b: [2] })).toBeNaN();
    expect(outputsError({ a: of(1), b: of(Number.NaN) }, { a: [1], b: [2] })).toBeNaN();
  });

  test('growth: linear passes, L to the power 1.2 does not, in time and in memory', () => {
    const lengths = [64, 1024, 2048, 4096, 65536];
    const rows = (time: number, memory: number) =>
      lengths.map((steps) => ({ steps, ms: 0.01 * steps ** time, bytes: 100 * steps ** memory }));
    expect(beyondBound(growth(rows(1, 1)))).toEqual([]);
    expect(beyondBound(growth(rows(1.09, 0)))).toEqual([]);
    expect(beyondBound(growth(rows(1.2, 1)))).toEqual(['time grows with L to the power 1.200, expected at most 1.1']);
    expect(beyondBound(growth(rows(1, 2)))).toEqual(['memory grows with L to the power 2.000, expected at most 1.1']);
    expect(growth(rows(1, 1)).peakGrowthBytesAt65536).toBe(6553600);
    expect(beyondBound(growth(rows(3, 3).slice(0, 2)))).toEqual([]); // one length from 1024 on has no slope
  });

  test('a row that agreed at a shorter length only is neither checked nor wrong', () => {
    expect(isWrong({ checked: true })).toBe(false);
    expect(isWrong({ checked: false, checkedSteps: 4096 })).toBe(false);
    expect(isWrong({ checked: false, checkedSteps: 0 })).toBe(true);
    expect(isWrong({ checked: false })).toBe(true);
  });

  test('whole models stand against all their threads, kernels against one', () => {
    const limits = {
      levels: [{ isa: 'avx2', fma1: 100, fma2: 180 }],
      copy: [{ bytes: 1e6, gbs1: 10, gbs2: 16 }],
      amx: 0,
    };
    const of = (more: Partial<BenchRow>) =>
      ofCeilings({ ...row('x', 1), isa: 'avx2', gflops: 90, gbs: 8, ...more }, limits);
    expect(of({})).toMatchObject({ percent: 90, percentCopy: 80 });
    expect(of({ threads: 1 })).toMatchObject({ percent: 90, percentCopy: 80 });
    expect(of({ threads: 2 })).toMatchObject({ percent: 50, percentCopy: 50 });
    expect(of({ threads: 4 })).toMatchObject({ percent: 25, percentCopy: 25 });
    expect(of({ threads: 2, precision: 'bfloat16' })).not.toHaveProperty('percent');
    expect(of({ isa: 'amx' })).not.toHaveProperty('percent');
  });

  test('contestants take turns, and rates follow from the median', async () => {
    const order: string[] = [];
    const contestant = (name: string) => ({
      row: { name, checked: true, batch: 10, flops: 1e6, bytes: 1e3 },
      call: () => order.push(name),
    });
    const rows = await interleaved([contestant('a'), contestant('b')], 3, 0);
    const turns = order.filter((name, i) => name !== order[i - 1]);
    expect(turns).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
    expect(rows.map(({ name, repetitions }) => [name, repetitions])).toEqual([
      ['a', 3],
      ['b', 3],
    ]);
    const [a] = rows as [BenchRow, BenchRow];
    expect(a.perSecond).toBeCloseTo(10000 / a.ms, 6);
    expect(a.gflops).toBeCloseTo(1 / a.ms, 6);
    expect(a.low).toBeLessThanOrEqual(a.ms);
  });
});

describe('page', () => {
  const run: BenchRun = {
    ...newRun('kernels', [
      { ...row('native gemm <&>', 1), isa: 'avx2', flops: 1e6, bytes: 1e4, gflops: 50 },
      row('fused model', 2),
    ]),
    ceilings: { levels: [{ isa: 'avx2', fma1: 100, fma2: 200 }], copy: [{ bytes: 1, gbs1: 50, gbs2: 90 }], amx: 0 },
    figures: { timeExponent: 1.05 },
  };

  test('stands alone, escapes names and knows dark', () => {
    const html = benchPage(run);
    expect(html).not.toMatch(/<script|<link|https?:\/\/|url\(/);
    expect(html).toContain('gemm &lt;&amp;&gt;');
    expect(html).not.toContain('gemm <&>');
    expect(html).toContain('prefers-color-scheme:dark');
    expect(html).toContain('width=device-width');
    for (const tag of ['svg', 'section', 'table']) {
      expect(html.split(`<${tag}`).length).toBe(html.split(`</${tag}>`).length);
    }
  });

  test('the numbers of a roofline lie beside their points, not on each other', () => {
    // GEMMs at one spot, norms and scans at another: what the kernels' page draws.
    const at: [number, number][] = [
      ...([8.2, 8.9, 7.5, 8.1, 7.4, 7.6] as const).map((x, i): [number, number] => [x, 95 - 3 * i]),
      ...([0.5, 0.88, 0.88, 0.5, 4, 5, 1.07, 1.04, 1.02, 0.9] as const).map((x, i): [number, number] => [
        x,
        25 + 4 * i,
      ]),
    ];
    const kernels = at.map(([x, gflops], i) => ({ name: String(i), flops: x, bytes: 1, gflops }));
    const drawn = roofline('r', kernels, 113, [{ name: 'L1', gbs: 200 }]);
    const numbers = [...drawn.matchAll(/<text x="([^"]+)" y="([^"]+)" text-anchor="middle">(\d+)<\/text>/g)]
      .slice(-at.length)
      .map(([, x, y]) => [Number(x), Number(y)] as const);
    expect(numbers).toHaveLength(at.length);
    const dots = [...drawn.matchAll(/cx="([^"]+)" cy="([^"]+)"/g)].map(([, x, y]) => [Number(x), Number(y)] as const);
    for (const [i, [x, y]] of numbers.entries()) {
      for (const [a, b] of numbers.slice(0, i)) expect(Math.abs(a - x) > 16 || Math.abs(b - y) > 12).toBe(true);
      for (const [a, b] of dots) expect(Math.abs(a - x) > 8 || Math.abs(b - (y - 5)) > 8).toBe(true);
    }
  });

  test('charts stay within their frame for any positive numbers', () => {
    const positive = fc.double({ min: 1e-6, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(fc.array(fc.tuple(positive, positive), { minLength: 1, maxLength: 9 }), (points) => {
        const kernels = points.map(([x, y], i) => ({ name: String(i), flops: x, bytes: 1, gflops: y }));
        const all = [
          curves('c', [{ name: 'x', points }], 'x', 'y'),
          roofline('r', kernels, 100, [
            { name: 'L1', gbs: 50 },
            { name: 'L2', gbs: 5 },
          ]),
          bars(
            'b',
            points.map(([, value], i) => ({ name: String(i), value })),
          ),
        ];
        for (const svg of all) {
          expect(svg).not.toMatch(/NaN|Infinity|undefined/);
          for (const [, cx] of svg.matchAll(/cx="([^"]+)"/g)) {
            expect(Number(cx)).toBeGreaterThanOrEqual(75.9);
            expect(Number(cx)).toBeLessThanOrEqual(540.1);
          }
        }
      }),
      { seed, numRuns: 50 },
    );
  });

  test('nothing to draw draws nothing', () => {
    expect(curves('c', [{ name: 'x', points: [[0, 1]] }], 'x', 'y')).toBe('');
    expect(roofline('r', [], 1, [{ name: 'L1', gbs: 1 }])).toBe('');
    expect(bars('b', [])).toBe('');
  });
});

describe('command line', () => {
  test('wrong usage is exit code 2 and says what was expected', async () => {
    for (const args of [
      ['nonsense'],
      ['model'],
      ['model', 'no-such-preset'],
      ['compare', 'one.json'],
      ['scaling', '--steps', '63'],
      ['scaling', 'extra'],
      ['attention', 'extra'],
      ['kernels', 'zzz', '--quick'],
    ]) {
      const { code, stdout } = await cli('bench', ...args);
      expect([args, code, stdout]).toEqual([args, 2, '']);
    }
  }, 300000);

  test('model: every row checked, timed and complete', async () => {
    const { code, stdout } = await cli('bench', 'model', 'mortality', '--quick', '--json', '--device', 'cpu');
    const run = JSON.parse(stdout) as BenchRun;
    expect(code).toBe(0);
    expect(run.rows.length).toBeGreaterThanOrEqual(3);
    for (const r of run.rows) {
      expect(r.checked).toBe(true);
      expect(r.error).toBeLessThanOrEqual(2e-5);
      expect(r.low).toBeGreaterThan(0);
      expect(r.p99!).toBeGreaterThanOrEqual(r.ms);
    }
    expect(run.figures!.parameters).toBeGreaterThan(3e5);
    const peak = Object.entries(run.figures!).filter(([name]) => /^peakBytesOfARunOf\d+$/.test(name));
    expect(peak).toHaveLength(1);
    expect(peak[0]![1]).toBeGreaterThanOrEqual(0);
    expect(run.figures!.loadedBytes).toBeGreaterThan(0);
  }, 120000);

  test('memory of one run: what it adds, not what ran before', async () => {
    const asked = { source: 'mortality', batch: 8, steps: 48, options: { device: 'cpu' as const } };
    const { loaded, grown } = await measureMemory(asked);
    expect(loaded).toBeGreaterThanOrEqual(0);
    expect(grown).toBeGreaterThanOrEqual(0);
    expect(grown).toBeLessThan(2 ** 26);
  });

  test('inputs: no padding token, both sequences of a pair', () => {
    const pair = feedsOf(presets.retrieval(), 2, 50) as Record<string, { data: Int32Array; dims: number[] }>;
    expect(Object.keys(pair)).toEqual(['tokens', 'tokens2']);
    expect(pair.tokens!.dims).toEqual([2, 50]);
    expect([...pair.tokens!.data, ...pair.tokens2!.data]).not.toContain(1);
    expect(pair.tokens!.data).not.toEqual(pair.tokens2!.data);
  });
});

test("bench's packages are no dependency of the published package", () => {
  const read = (file: string) => JSON.parse(readFileSync(join(root, file), 'utf8'));
  const peers = Object.keys(read('bench/package.json').dependencies);
  const own = read('package.json');
  expect(
    peers.filter((name) => name in { ...own.dependencies, ...own.devDependencies, ...own.optionalDependencies }),
  ).toEqual([]);
  expect(own.files.some((file: string) => file.startsWith('bench'))).toBe(false);
});
