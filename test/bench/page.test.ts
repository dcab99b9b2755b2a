/** The pages of `hpformer bench --html` drawn by a Chromium, where there is one: nothing is cut off, wider than the window or on other text. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { benchPage } from '../../src/cli/bench';
import { bars, page, section } from '../../src/cli/benchHtml';
import { type BenchRow, type BenchRun, newRun } from '../../src/cli/benchTiming';
import { describeUnless } from '../skips';

const { chromium, schemes, screenshots, widths } = require('../../bench/screenshots.cjs') as {
  chromium(): string | undefined;
  schemes: string[];
  screenshots(pages: string[], folder: string): Promise<{ file: string; problems: string[] }[]>;
  widths: Record<string, number>;
};

const row = (name: string, ms: number, more: Partial<BenchRow> = {}): BenchRow => ({
  ...{
    name,
    ms,
    low: 0.98 * ms,
    high: 1.03 * ms,
    p99: 1.4 * ms,
    repetitions: 60,
    checked: true,
    device: 'cpu',
    isa: 'avx2',
  },
  ...more,
});

/** A kernel of bench/native: operations per byte, and the rate reached. */
const kernel = (name: string, intensity: number, gflops: number) =>
  row(`native ${name}`, 786432 / gflops / 1e6, {
    ...{ flops: 786432, bytes: 786432 / intensity, gflops, gbs: gflops / intensity, percent: gflops, percentCopy: 40 },
  });

const runs: BenchRun[] = [
  {
    ...newRun('kernels', [
      ...['tdhp', 'layer', 'head'].map((name, i) => row(`fused ${name}`, 2 + i, { gflops: 40, gbs: 3, percent: 38.5 })),
      row('unfused intraSegmentAttention', 0.1, { gflops: 10, gbs: 9, percent: 9.5, percentCopy: 11 }),
      ...['', ' without absorbedEmbedding', ' without zeroRowsClosedForm', ' without foldedWeights'].map((off, i) =>
        row(`fused model${off}`, 45 + 30 * i, { gflops: 90 - 9 * i, percent: 51 - 4 * i, batch: 4, perSecond: 88 }),
      ),
      ...[kernel('gemm 128', 8.7, 95), kernel('gemm 256', 17.5, 98), kernel('gemm 128 relu residual', 7.7, 94)],
      ...[
        kernel('gemm 256 silu residual', 9.4, 90),
        kernel('gemm embed 128x76', 7.6, 93),
        kernel('matvec 128', 0.5, 27),
      ],
      ...[kernel('gemm folded 128x56', 5.9, 91), kernel('layernorm 128', 0.88, 43), kernel('layernorm 256', 0.88, 45)],
      ...[kernel('rmsnorm 128', 0.5, 38), kernel('keyScores 128 S=7', 4, 55), kernel('keyScores 256 S=10', 5, 60)],
      ...[kernel('scanBlock 76', 1.07, 33), kernel('scanBlock 128', 1.04, 30), kernel('scanBlock 256', 1.02, 36)],
      kernel('keyAttentionLanes 128 S=4', 0.87, 24),
    ]),
    ceilings: {
      levels: [{ isa: 'avx2', fma1: 104, fma2: 186 }],
      copy: [16384, 262144, 67108864].map((bytes, i) => ({
        bytes,
        gbs1: [185, 81, 5.5][i]!,
        gbs2: [221, 149, 5.7][i]!,
      })),
      amx: 0,
    },
    figures: { 'multiply-add peak, avx2': '104 GFLOP/s on one core, 186 on two', cuda: 'not timed: no CUDA device' },
  },
  {
    ...newRun(
      'scaling',
      Array.from({ length: 11 }, (_, i) => 64 * 2 ** i).map((steps) =>
        row(`L=${steps}`, 0.0022 * steps, {
          steps,
          bytes: 520 * steps,
          percent: 70,
          ...(steps > 4096 && { checked: false, checkedSteps: 4096 }),
        }),
      ),
    ),
    figures: { timeExponentFrom1024: 1.027, peakGrowthBytesAt65536: 34e6 },
  },
  {
    ...newRun('model', [
      row('runSync batch 1', 0.048, { perSecond: 20530, batch: 1 }),
      row('run batch 1024', 9.9, { perSecond: 103000, batch: 1024 }),
    ]),
    figures: { loadMs: 98.9, peakBytesOfARunOf1024: 1.2e7 },
  },
];

describeUnless(chromium() === undefined ? 'no Chromium here' : undefined, 'pages in a Chromium', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'hpformer-pages-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('whole and readable at desktop and phone width, light and dark', async () => {
    const pages = runs.map((run) => {
      const file = join(folder, `${run.bench}.html`);
      writeFileSync(file, benchPage(run));
      return file;
    });
    const shots = await screenshots(pages, folder);
    expect(shots.map(({ file, problems }) => [basename(file), problems])).toEqual(
      runs.flatMap(({ bench }) =>
        Object.values(widths).flatMap((width) => schemes.map((scheme) => [`${bench}-${width}-${scheme}.png`, []])),
      ),
    );
    for (const { file } of shots) {
      const png = readFileSync(file);
      expect(png.subarray(1, 4).toString()).toBe('PNG');
      expect(png.readUInt32BE(16)).toBe(Number(/-(\d+)-/.exec(basename(file))![1]));
      expect(png.readUInt32BE(20)).toBeGreaterThan(600);
    }
    const [light, dark] = shots.map(({ file }) => readFileSync(file));
    expect(light!.equals(dark!)).toBe(false);
  }, 120000);

  test('what is wrong is found: a page too wide, text on text, text outside its chart', async () => {
    const names = ['a', 'b'].map((name) => ({ name, value: 1, text: 'x'.repeat(90) }));
    const wide = '<div style="width:2000px">wide</div>';
    const double = bars('Twice', names).replace(/(<text[^>]*>)a/, '$1b</text>$1a');
    const file = join(folder, 'broken.html');
    writeFileSync(file, page('broken', '', section('Bars', double), section('Wide', wide)));
    const [desktop] = await screenshots([file], folder);
    const said = desktop!.problems.join('\n');
    expect(said).toContain('the page is');
    expect(said).toContain('Twice: "a" lies on "b"');
    expect(said).toMatch(/Twice: "x+" leaves the chart/);
  }, 60000);
});
