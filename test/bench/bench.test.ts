/** `hpformer bench` without its clock: comparison, statistics, page, command line, and that checks precede timings. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { presets } from '../../src';
import { benchPage } from '../../src/cli/bench';
import { compareRuns } from '../../src/cli/benchCompare';
import { bars, curves, roofline } from '../../src/cli/benchHtml';
import { feedsOf } from '../../src/cli/benchModel';
import {
  type BenchRow,
  type BenchRun,
  errorOf,
  fittedExponent,
  interleaved,
  newRun,
  rotating,
} from '../../src/cli/benchTiming';
import { main } from '../../src/cli/main';
import { root } from '../skips';

const seed = process.env.SEED ? Number(process.env.SEED) : Date.now() % 0x7fffffff;

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
  }, 120000);

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
