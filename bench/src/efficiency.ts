/**
 * `node bench/run.cjs efficiency [--steps 1024,2048,…] [--json FILE] [--from FILE]`: measures every encoder of bench/peers at the
 * Long Range Arena lengths and at 16K and writes docs/efficiency.md. `--from` writes the page from a saved measurement.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { capture, program } from './build';
import { root } from './package';

interface Row {
  system: string;
  steps: number;
  ms: number;
  bytes: number;
  flops: number;
  checked: boolean;
  checkedSteps: number;
  parametersPerLayer: number;
  repetitions: number;
}

interface Measurement {
  cpu: string;
  isa: string;
  threads: number;
  hidden: number;
  heads: number;
  layers: number;
  date: string;
  /** What measured it. */
  command: string;
  rows: Row[];
  /** `hpformer bench scaling --json`. */
  scaling: { rows: { steps: number; ms: number; bytes: number }[]; figures: Record<string, number> };
}

const { values: options } = parseArgs({
  options: {
    steps: { type: 'string', default: '1024,2048,3072,4096,16384' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
    from: { type: 'string' },
  },
});

function measure(): Measurement {
  const binary = program('peers', 'hpformer_attention');
  const rows: Row[] = [];
  let head: Omit<Measurement, 'rows' | 'cpu' | 'date' | 'command' | 'scaling'> | undefined;
  for (const steps of options.steps.split(',')) {
    const { status, stdout } = capture(binary, ['--steps', steps, '--rounds', options.rounds]);
    if (status !== 0) throw new Error(`hpformer_attention --steps ${steps} failed: a check did not hold`);
    const { rows: more, ...rest } = JSON.parse(stdout) as Measurement;
    rows.push(...more);
    head = rest;
  }
  const cpu = os.cpus()[0]?.model.trim() ?? 'unknown processor';
  const main = join(root, 'dist', 'cli', 'main.js');
  const { status, stdout } = capture(process.execPath, [main, 'bench', 'scaling', '--device', 'cpu', '--json']);
  if (status !== 0) throw new Error('hpformer bench scaling failed');
  const scaling = JSON.parse(stdout) as Measurement['scaling'];
  const command = `node bench/run.cjs efficiency --steps ${options.steps} --rounds ${options.rounds}`;
  return { ...head!, cpu, date: new Date().toISOString().slice(0, 10), command, rows, scaling };
}

/** What each encoder is, and the choices made where its paper leaves some. The sources of bench/peers say more. */
const systems: Record<string, [title: string, source: string, choices: string]> = {
  hpformer: [
    'HPformer',
    'TPAMI 2025',
    "the product's CPU engine, all exact rewrites on; no query, key or value projections, K_comp shared by all layers",
  ],
  transformer: [
    'Transformer',
    'arXiv 1706.03762',
    'full softmax, tiled with an online softmax: no L x L matrix exists',
  ],
  linformer: ['Linformer', 'arXiv 2006.04768', 'k = 256; one projection per layer for keys, values and all heads'],
  performer: ['Performer', 'arXiv 2009.14794', 'FAVOR+, 256 positive orthogonal features'],
  linear: ['Linear Transformer', 'arXiv 2006.16236', 'elu + 1, not causal'],
  longformer: ['Longformer', 'arXiv 2004.05150', 'window 512, the first token global with projections of its own'],
  sparse: [
    'Sparse Transformer',
    'arXiv 1904.10509',
    'strided, stride ⌈√L⌉, two-sided; half of the heads local, half strided',
  ],
  reformer: ['Reformer', 'arXiv 2001.04451', 'LSH, 4 rounds, chunks of 64, shared query and key'],
  sinkhorn: ['Sinkhorn', 'arXiv 2002.11296', 'blocks of 64, 8 normalisations, temperature 0.75, no noise'],
  synthesizer: [
    'Synthesizer',
    'arXiv 2005.00743',
    'dense; the factorised random form is `--systems synthesizer-random`',
  ],
  adamra: ['AdaMRA', 'arXiv 2108.04962', 'resolutions 1, 4, 16, 64 by means; top-1 router; elu + 1 within'],
  hot: [
    'HOT',
    'arXiv 2412.02919',
    'the sequence folded into ⌈√L⌉ columns; softmax per axis; kernelised: `--systems hot-kernel`; tensors: `--axes 48x76`',
  ],
};

/** Published Long Range Arena accuracies: not reproduced here. */
const published: [name: string, ...accuracy: string[]][] = [
  ['HPformer', '39.20', '66.86', '83.87', '45.19', '66.58', "the authors' training logs"],
  ['Transformer', '36.37', '64.27', '57.46', '42.44', '71.40', 'LRA'],
  ['Local attention', '15.82', '52.98', '53.39', '41.46', '66.63', 'LRA'],
  ['Sparse Transformer', '17.07', '63.58', '59.59', '44.24', '71.71', 'LRA'],
  ['Longformer', '35.63', '62.85', '56.89', '42.22', '69.71', 'LRA'],
  ['Linformer', '35.70', '53.94', '52.27', '38.56', '76.34', 'LRA'],
  ['Reformer', '37.27', '56.10', '53.40', '38.07', '68.50', 'LRA'],
  ['Sinkhorn', '33.67', '61.20', '53.83', '41.23', '67.45', 'LRA'],
  ['Synthesizer', '36.99', '61.68', '54.67', '41.61', '69.45', 'LRA'],
  ['BigBird', '36.05', '64.02', '59.29', '40.83', '74.87', 'LRA'],
  ['Linear Transformer', '16.13', '65.90', '53.09', '42.34', '75.30', 'LRA'],
  ['Performer', '18.01', '65.40', '53.82', '42.77', '77.05', 'LRA'],
  ['Transformer, re-run', '37.11', '65.21', '79.14', '42.94', '71.83', 'Mega, arXiv 2209.10655, Table 2'],
];

const table = (header: string[], rows: string[][]) =>
  [header, header.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

/** Slope of ln y over ln x. */
function exponent(points: [number, number][]): number {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  const mx = logs.reduce((s, [x]) => s + x, 0) / logs.length;
  const my = logs.reduce((s, [, y]) => s + y, 0) / logs.length;
  return logs.reduce((s, [x, y]) => s + (x - mx) * (y - my), 0) / logs.reduce((s, [x]) => s + (x - mx) ** 2, 0);
}

function markdown(m: Measurement): string {
  const steps = [...new Set(m.rows.map((row) => row.steps))];
  const names = [...new Set(m.rows.map((row) => row.system))];
  const row = (system: string, l: number) => m.rows.find((r) => r.system === system && r.steps === l)!;
  const title = (system: string) => systems[system]?.[0] ?? system;
  const length = (l: number) => (l % 1024 === 0 ? `${l / 1024}K` : String(l));
  const ratio = (x: number) => `${x >= 10 ? x.toFixed(0) : x.toFixed(2)}x`;
  const mega = (x: number) => (x / 1e6).toFixed(x < 1e7 ? 1 : 0);
  const milliseconds = (x: number) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));
  const micro = (nanoseconds: number) => (nanoseconds / 1000).toFixed(2);
  const base = (l: number) => row('transformer', l);
  const checked = steps.filter((l) => names.every((n) => row(n, l).checked));
  const atLengths = checked.length === steps.length ? 'every length below' : checked.map(length).join(', ');
  const others = steps.filter((l) => !checked.includes(l));
  const shorter = others
    .map((l) => `; ${length(l)} was not checked itself, but at ${length(base(l).checkedSteps)} steps`)
    .join('');
  const counts = m.rows.map((r) => r.repetitions);
  const repetitions =
    Math.min(...counts) === Math.max(...counts)
      ? counts[0]
      : `${Math.min(...counts)} to ${Math.max(...counts)} (fewer of the slow ones)`;
  return `# Efficiency

Generated by \`${m.command}\`. One sequence through a whole encoder, ${m.layers} layers, hidden ${m.hidden}, ${m.heads} heads, one-linear
feed-forward of the same width, float32, ${m.threads} threads; 76 features in, the mean over steps out. All systems stand on the same CPU
kernels (${m.isa}) and thread pool, so that the comparison is about the algorithm. Before it is timed each is checked against a
double-precision evaluation of its own formula: the embedding, every layer on what that layer received, and the result of the timed
call (HPformer: the call's result after all layers), at ${atLengths}${shorter}.
Median of ${repetitions} interleaved repetitions on ${m.cpu}, ${m.date}.

The peers are written with care but not tuned to the last per cent; absolute milliseconds belong to that machine and its load
that day, ratios are of one run.

## Speed and memory against the Transformer

In the form of the Long Range Arena's efficiency table: speed relative to the full-attention Transformer (higher is better), and
peak memory relative to it (lower is better). Memory is the growth of the peak resident set over the loaded encoder during
its first run, in a process of its own.

${table(
  ['encoder', ...steps.map((l) => `speed ${length(l)}`), ...steps.map((l) => `memory ${length(l)}`)],
  names.map((n) => [
    title(n),
    ...steps.map((l) => ratio(base(l).ms / row(n, l).ms)),
    ...steps.map((l) => (row(n, l).bytes / base(l).bytes).toFixed(2)),
  ]),
)}

## As measured and as counted

Operations are those of the matrix products as each formula states them, two per multiply-add (HPformer's engine performs fewer: its
rewrites are exact). The exponent is the slope of ln(time) over ln(L) across the lengths above: 1 is linear, 2 quadratic.
Each length is measured for itself: a host whose speed changes in between bends exponents and milliseconds, not the ratios of a length.

${table(
  [
    'encoder',
    ...steps.map((l) => `ms ${length(l)}`),
    ...steps.map((l) => `MB ${length(l)}`),
    ...steps.map((l) => `MFLOP ${length(l)}`),
    `parameters per layer at ${length(steps[0]!)}`,
    'exponent',
  ],
  names.map((n) => [
    title(n),
    ...steps.map((l) => milliseconds(row(n, l).ms)),
    ...steps.map((l) => (row(n, l).bytes / 2 ** 20).toFixed(1)),
    ...steps.map((l) => mega(row(n, l).flops)),
    String(row(n, steps[0]!).parametersPerLayer),
    steps.length > 1 ? exponent(steps.map((l) => [l, row(n, l).ms])).toFixed(2) : '',
  ]),
)}

## HPformer from 64 to 65,536 steps

\`hpformer bench scaling\`: one sequence, hidden 128, 6 layers, mean readout, through the public API. Memory is what the first run over that
length adds to the peak resident set of a fresh process. Fitted from L = 1,024 to 65,536, time grows with the power ${m.scaling.figures.timeExponentFrom1024!.toFixed(3)} of L
and memory with ${m.scaling.figures.memoryExponentFrom1024!.toFixed(3)}; the command fails beyond 1.1. A token costs between ${micro(m.scaling.figures.leastNanosecondsPerToken!)} and ${micro(m.scaling.figures.mostNanosecondsPerToken!)} µs: a factor of ${m.scaling.figures.mostOverLeast!.toFixed(2)}. In the table above,
full attention's time grows with the power ${exponent(steps.map((l) => [l, base(l).ms])).toFixed(2)}.

${table(
  ['L', 'ms', 'µs a token', 'MB'],
  m.scaling.rows.map((r) => [
    String(r.steps),
    milliseconds(r.ms),
    micro((1e6 * r.ms) / r.steps),
    (r.bytes / 2 ** 20).toFixed(2),
  ]),
)}

## What each encoder is

${table(
  ['encoder', 'source', 'choices'],
  names.map((n) => [title(n), systems[n]?.[1] ?? '', systems[n]?.[2] ?? '']),
)}

## Published accuracies (not reproduced here)

Long Range Arena test accuracy in per cent. LRA: the leaderboard of google-research/long-range-arena (8 November 2020). Other code bases
give other figures for the same model (last row), so small differences between sources mean little. No per-task figures of
AdaMRA could be read (its abstract states an average 4.32 points above its own Transformer); HOT was not run on this benchmark.

${table(['model', 'ListOps', 'Text', 'Retrieval', 'Image', 'Pathfinder', 'source'], published)}
`;
}

const measurement = options.from ? (JSON.parse(readFileSync(options.from, 'utf8')) as Measurement) : measure();
if (options.json) writeFileSync(options.json, `${JSON.stringify(measurement, null, 2)}\n`);
writeFileSync(join(root, 'docs', 'efficiency.md'), markdown(measurement));
