import { HPformerError } from '../errors';
import { writeAtomically } from '../files';
import { devices } from '../model/devices';
import { ceilings, inCheckout, runInCheckout } from './benchCheckout';
import { compareRuns, readRun } from './benchCompare';
import { bars, curves, page, roofline, section, table } from './benchHtml';
import { benchKernels, cudaDevices } from './benchKernels';
import { benchModel, benchScaling, beyondBound, shortest } from './benchModel';
import { type BenchRow, type BenchRun, type Ceilings, isWrong, newRun } from './benchTiming';
import {
  type Command,
  type Io,
  integerOption,
  note,
  textOption,
  UsageError,
  type Values,
  write,
  writeJson,
} from './command';
import { loadOptions, modelOptions } from './model';
import { checkOutputs } from './output';
import { formatPairs, formatTable } from './table';

const tasks = ['kernels', 'model', 'scaling', 'attention', 'compare'] as const;

const figure = (x: number | undefined, digits = 4) =>
  x === undefined ? '' : x >= 10000 ? x.toFixed(0) : `${+x.toPrecision(digits)}`;

const sizeText = (bytes: number) => (bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MB` : `${bytes / 1024} KB`);

/** Figures of a run in words: what `--json` names shortly, with its unit. */
const figureNames: Record<string, string> = {
  loadMs: 'load time, ms',
  loadedBytes: 'memory of the loaded model, MB',
  timeExponentFrom1024: 'exponent of time from L = 1024 on',
  memoryExponentFrom1024: 'exponent of memory from L = 1024 on',
  leastNanosecondsPerToken: 'least time of a token, ns',
  mostNanosecondsPerToken: 'most time of a token, ns',
  mostOverLeast: 'most over least',
};

/** The figures of a run as lines of a table. */
function figureLines(figures: BenchRun['figures']): [name: string, value: string][] {
  return Object.entries(figures ?? {}).map(([key, value]) => {
    const growth = /^peakGrowthBytesAt(\d+)$/.exec(key);
    const run = /^peakBytesOfARunOf(\d+)$/.exec(key);
    const name = run
      ? `peak memory that the first run of ${run[1]} adds, MB`
      : growth
        ? `peak memory that a run of L = ${growth[1]} adds, MB`
        : (figureNames[key] ?? key);
    if (typeof value !== 'number') return [name, value];
    return [name, figure(/Bytes/.test(key) ? value / 2 ** 20 : value)];
  });
}

const header = [
  'name',
  'device',
  'isa',
  'ms',
  'low',
  'high',
  'p99',
  'per s',
  'MB',
  'GFLOP/s',
  'GB/s',
  '% of peak',
  '% of copy',
  'checked',
] as const;

const checkedText = (row: Pick<BenchRow, 'checked' | 'checkedSteps'>) =>
  row.checked ? 'yes' : isWrong(row) ? 'NO' : `at ${row.checkedSteps}`;

const cellsOf = (row: BenchRow) => [
  row.name,
  row.device ?? '',
  row.isa ?? '',
  figure(row.ms),
  figure(row.low),
  figure(row.high),
  figure(row.p99),
  figure(row.perSecond),
  // Kernels' bytes are traffic (GB/s); a length's are memory.
  row.gbs === undefined && row.bytes !== undefined ? figure(row.bytes / 2 ** 20, 3) : '',
  figure(row.gflops),
  figure(row.gbs),
  figure(row.percent, 3),
  figure(row.percentCopy, 3),
  checkedText(row),
];

/** Columns that no row fills are left out. */
function shown(rows: readonly BenchRow[]): { header: string[]; cells: string[][] } {
  const cells = rows.map(cellsOf);
  const used = header.map((_, c) => cells.some((row) => row[c] !== ''));
  return { header: header.filter((_, c) => used[c]), cells: cells.map((row) => row.filter((_, c) => used[c])) };
}

const machineText = ({ machine, hpformer }: BenchRun) =>
  `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, hpformer ${hpformer}.`;

/** The run as a page. */
export function benchPage(run: BenchRun): string {
  const { rows } = run;
  const note = `${machineText(run)} Medians of interleaved repetitions. "checked" says whether all outputs of that very call agreed with the double-precision reference before it was timed, or those of a shorter sequence, of so many steps.`;
  const long = rows.filter(({ steps }) => steps !== undefined);
  const sections: string[] = [];
  if (run.bench === 'scaling') {
    const points = (value: (row: BenchRow) => number) =>
      long.flatMap((row) => (value(row) > 0 ? [[row.steps!, value(row)] as const] : []));
    const drawn = (title: string, unit: string, value: (row: BenchRow) => number) =>
      section(title, curves(title, [{ name: 'HPformer', points: points(value) }], 'steps L', unit));
    sections.push(
      drawn('Time by length', 'ms', (row) => row.ms),
      drawn('Peak memory that a run adds, by length', 'MB', (row) => (row.bytes ?? 0) / 2 ** 20),
    );
  } else if (run.bench === 'kernels') {
    for (const level of run.ceilings?.levels ?? []) {
      // Products of integers and of tiles have other roofs.
      const points = rows.flatMap((row) =>
        row.name.startsWith('native') &&
        row.percent !== undefined &&
        !row.name.endsWith('tiles') &&
        row.isa === level.isa &&
        row.flops &&
        row.bytes &&
        row.gflops
          ? [{ name: row.name.replace('native ', ''), flops: row.flops, bytes: row.bytes, gflops: row.gflops }]
          : [],
      );
      const bandwidths = run.ceilings!.copy.map(({ bytes, gbs1 }) => ({ name: sizeText(bytes), gbs: gbs1 }));
      sections.push(
        section(
          `Roofline, ${level.isa}, one core`,
          roofline(`Roofline of ${level.isa}`, points, level.fma1, bandwidths),
        ),
      );
    }
    // The level or device listed first is the best one.
    const [best] = rows.filter(({ name }) => name.startsWith('fused model'));
    const engine = rows.filter(
      ({ name, isa, device }) => name.startsWith('fused model') && isa === best!.isa && device === best!.device,
    );
    sections.push(
      section(
        `The whole model, each rewrite off${best ? `, ${best.device} ${best.isa ?? ''}` : ''}`,
        bars(
          'Milliseconds',
          engine.map(({ name, ms }) => ({
            name: name.replace('fused model', 'all on').replace('all on without', 'without'),
            value: ms,
            text: `${figure(ms)} ms`,
          })),
        ),
      ),
    );
  } else {
    sections.push(
      section(
        'Sequences per second',
        bars(
          'Sequences per second',
          rows.flatMap(({ name, perSecond }) => (perSecond ? [{ name, value: perSecond }] : [])),
        ),
      ),
    );
  }
  const { header: head, cells } = shown(rows);
  const figures = figureLines(run.figures);
  return page(
    `hpformer bench ${run.bench}`,
    note,
    ...sections,
    section('All rows', table(head, cells)),
    figures.length ? section('The run', table(['figure', 'value'], figures, 'pairs')) : '',
  );
}

/** Which CUDA devices were timed, or one line that none was and why. */
function cudaFigures(asked: Parameters<typeof cudaDevices>[0]): Record<string, string> {
  const { ids, reason } = cudaDevices(asked);
  if (reason !== undefined) return { cuda: `not timed: ${reason}` };
  return Object.fromEntries(
    ids.map((id) => [id, `${devices().find((device) => device.id === id)!.name}; times without copies`]),
  );
}

/** The ceilings of the run, in words. */
function ceilingFigures({ levels, copy, amx }: Ceilings): Record<string, string> {
  return {
    ...Object.fromEntries(
      levels.map(({ isa, fma1, fma2 }) => [
        `multiply-add peak, ${isa}`,
        `${figure(fma1)} GFLOP/s on one core, ${figure(fma2)} on two`,
      ]),
    ),
    ...Object.fromEntries(
      copy.map(({ bytes, gbs1, gbs2 }) => [
        `copy of ${sizeText(bytes)}`,
        `${figure(gbs1)} GB/s on one core, ${figure(gbs2)} on two`,
      ]),
    ),
    'AMX bf16 peak': amx > 0 ? `${figure(amx)} GFLOP/s on one core` : 'no AMX here',
  };
}

/**
 * A row with its parts of the ceilings: kernels of `kernels.*` run on one core, whole models on their threads (as many times the rate of
 * two threads as there are pairs). Products in bfloat16 or fixed point have no such peak.
 */
export function ofCeilings(row: BenchRow, { levels, copy }: Ceilings): BenchRow {
  const level = levels.find(({ isa }) => isa === row.isa);
  // The copy whose two buffers hold about what the kernel touches.
  const size = copy.find(({ bytes }) => 2 * bytes >= (row.bytes ?? 0)) ?? copy.at(-1);
  if (row.name.startsWith('native') || row.percent !== undefined || !level || !size) return row;
  const { threads = 1, precision = 'float32', gflops, gbs } = row;
  const all = (one: number, two: number) => (threads < 2 ? one : (two * threads) / 2);
  const parts: Partial<BenchRow> = {};
  if (gflops !== undefined && precision === 'float32') parts.percent = (100 * gflops) / all(level.fma1, level.fma2);
  if (gbs !== undefined) parts.percentCopy = (100 * gbs) / all(size.gbs1, size.gbs2);
  return { ...row, ...parts };
}

/** A run with its parts of this machine's ceilings, where the probe is at hand; a quick one of whole models does without. */
async function measured(bench: string, rows: BenchRow[], quick: boolean): Promise<BenchRun> {
  const limits = quick ? undefined : await ceilings();
  const run = newRun(bench, limits ? rows.map((row) => ofCeilings(row, limits)) : rows);
  if (limits) run.ceilings = limits;
  return run;
}

/** Prints a run. `problems` beside wrong results fail it too. */
async function report(run: BenchRun, values: Values, io: Io, problems: string[] = []): Promise<number> {
  const file = textOption(values, 'html');
  if (file !== undefined) await writeAtomically(file, benchPage(run));
  if (values.json) await writeJson(io.stdout, run);
  else {
    const { header: head, cells } = shown(run.rows);
    await write(io.stdout, formatTable(head, cells));
    const figures = figureLines(run.figures);
    if (figures.length > 0) await write(io.stdout, `\n${formatPairs(figures)}`);
  }
  const failed = run.rows.filter(isWrong);
  if (failed.length > 0) problems.unshift(`wrong results: ${failed.map(({ name }) => name).join(', ')}`);
  for (const problem of problems) await note(io.stderr, `hpformer bench: ${problem}\n`);
  return problems.length > 0 ? 1 : 0;
}

/** A row of `bench attention`. */
interface AttentionRow {
  system: string;
  steps: number;
  ms: number;
  bytes: number;
  flops: number;
  parametersPerLayer: number;
  checked: boolean;
  /** The steps at which it agreed with its formula: at most 4,096; 0 where it did not. */
  checkedSteps?: number;
}

async function attention(values: Values, io: Io): Promise<number> {
  if (!inCheckout()) {
    throw new UsageError(
      'attention: needs a checkout of the project, since its peers are not in the published package',
    );
  }
  const steps = integerOption(values, 'steps', 1, 1 << 20) ?? 1024;
  const rounds = values.quick ? '2' : '5';
  const threads = integerOption(values, 'threads', 1, 1024);
  const text = await runInCheckout(
    ['attention', '--steps', String(steps), '--rounds', rounds, ...(threads ? ['--threads', String(threads)] : [])],
    [0, 1],
  );
  const result = JSON.parse(text) as { rows: AttentionRow[] };
  const columns = ['system', 'steps', 'ms', 'MB', 'MFLOP', 'parameters per layer', 'checked'];
  const cells = result.rows.map(({ system, steps: long, ms, bytes, flops, parametersPerLayer, ...row }) => [
    system,
    String(long),
    figure(ms),
    figure(bytes / 2 ** 20, 3),
    figure(flops / 1e6),
    String(parametersPerLayer),
    checkedText(row),
  ]);
  const file = textOption(values, 'html');
  if (file !== undefined) {
    const drawn = (title: string, unit: string, value: (row: AttentionRow) => number) => {
      const items = result.rows.map((row) => ({ name: row.system, value: value(row) }));
      return section(
        title,
        bars(
          title,
          items.map((item) => ({ ...item, text: `${figure(item.value, 3)} ${unit}` })),
        ),
      );
    };
    const note = `${machineText(newRun('attention', []))} One sequence through a whole encoder, the same sizes and primitives for all; "checked" says whether every layer and the call itself agreed with the formula in double precision, or those of a shorter sequence, of so many steps. Memory is what the first run adds to the loaded encoder.`;
    const parts = [drawn('Time', 'ms', ({ ms }) => ms), drawn('Peak memory', 'MB', ({ bytes }) => bytes / 2 ** 20)];
    await writeAtomically(
      file,
      page(`Attentions at L = ${steps}`, note, ...parts, section('All rows', table(columns, cells))),
    );
  }
  // Saved with the machine, so that `bench compare` can read it.
  if (values.json) await writeJson(io.stdout, { ...newRun('attention', []), ...result });
  else await write(io.stdout, formatTable(columns, cells));
  return result.rows.some(isWrong) ? 1 : 0;
}

async function compare(files: readonly string[], values: Values, io: Io): Promise<number> {
  if (files.length !== 2) throw new UsageError(`compare: expected two saved runs, got ${files.length}`);
  const [before, after] = await Promise.all(files.map(readRun));
  if (before!.bench !== after!.bench) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `compare: expected two runs of one bench, got ${before!.bench} and ${after!.bench}`,
    );
  }
  const changes = compareRuns(before!, after!);
  if (values.json) await writeJson(io.stdout, { changes });
  else {
    const cells = changes.map((c) => [
      c.name,
      figure(c.before ?? undefined),
      figure(c.after ?? undefined),
      c.ratio === null ? '' : c.ratio.toFixed(3),
      c.verdict,
    ]);
    await write(io.stdout, formatTable(['name', 'before ms', 'after ms', 'before / after', 'verdict'], cells));
    if (before!.machine.cpu !== after!.machine.cpu)
      await note(io.stderr, 'hpformer bench: the two runs are from different processors\n');
  }
  return 0;
}

export const bench: Command = {
  summary: 'Measures kernels, models, scaling with length, and attentions of the literature; compares saved runs.',
  usage: `${tasks.join('|')} [arguments] [options]`,
  positionals: { least: 1, most: 64 },
  options: {
    ...modelOptions,
    steps: {
      type: 'string',
      value: 'n',
      help: 'kernels, model: steps L; scaling: the largest; attention: L (default 1024)',
    },
    batch: { type: 'string', value: 'n', help: 'kernels: sequences (default 4)' },
    quick: {
      type: 'boolean',
      help: 'fewer and shorter repetitions; scaling is not judged, whole models have no per cent',
    },
    json: { type: 'boolean', help: 'the run as JSON; save it to compare' },
    html: { type: 'string', value: 'file', help: 'also writes one self-contained page with charts' },
  },
  notes: [
    '  hpformer bench kernels [name...]      unfused and fused kernels per ISA level and device; in a checkout C++ ones too',
    '  hpformer bench model <preset|file>    latency, throughput by batch, load time, memory',
    '  hpformer bench scaling                time and memory from L = 64 to 65,536; fails beyond an exponent of 1.1',
    '  hpformer bench attention              HPformer beside eleven attentions (in a checkout only)',
    '  hpformer bench compare a.json b.json  what changed beyond noise',
  ],
  async run([task, ...rest], values, io) {
    if (!tasks.includes(task as (typeof tasks)[number])) {
      throw new UsageError(`expected ${tasks.join(', ')}, got "${task}"`);
    }
    if ((task === 'attention' || task === 'scaling') && rest.length > 0) {
      throw new UsageError(`${task}: expected no arguments, got "${rest.join(' ')}"`);
    }
    await checkOutputs([{ given: '--html', file: textOption(values, 'html') }], rest);
    if (task === 'attention') return attention(values, io);
    if (task === 'compare') return compare(rest, values, io);
    const options = loadOptions(values);
    const quick = values.quick === true;
    const steps = integerOption(values, 'steps', task === 'scaling' ? shortest : 1, 1 << 24);
    if (task === 'kernels') {
      const shape = { batch: integerOption(values, 'batch', 1, 4096) ?? 4, steps: steps ?? 504 };
      const asked = { ...options, names: rest, quick, shape };
      const rows = await benchKernels(asked);
      if (rows.length === 0) throw new UsageError(`kernels: no kernel's name contains ${rest.join(' or ')}`);
      const run = await measured('kernels', rows, false);
      run.figures = { ...(run.ceilings && ceilingFigures(run.ceilings)), ...cudaFigures(asked) };
      return report(run, values, io);
    }
    if (task === 'scaling') {
      const { rows, figures } = await benchScaling(steps ?? 65536, quick, options);
      const run = { ...(await measured('scaling', rows, quick)), figures };
      return report(run, values, io, quick ? [] : beyondBound(figures));
    }
    if (rest.length !== 1) throw new UsageError('model: expected one preset or model file');
    const { rows, figures } = await benchModel(rest[0]!, steps, quick, options);
    return report({ ...(await measured('model', rows, quick)), figures }, values, io);
  },
};
