/**
 * `node bench/run.cjs engine [--parts gemm,stack,threads,loop] [--quick] [--json FILE]`: how near its limits the CPU engine is.
 *
 * - gemm: the product alone at each ISA level of this machine, percent of that level's multiply-add peak in the same run;
 * - stack: whole float32 models on one thread, percent of the bound that their own vector instructions give. Instructions are counted by
 *   callgrind (once for each build) and timed beside loops of the same kinds; the level is the machine's, or AVX2 where valgrind does not
 *   know it;
 * - threads: one to two threads through the public API, by batch;
 * - loop: what a run costs the event loop at submit and resolve together. More than 100 µs fails the command.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { capture, program } from './build';
import { cases } from './cases';
import { boundOf, countKinds, disassembly, type InstructionCounts, type Rates } from './instructions';
import { interleaved, summary } from './measure';
import type { Feeds } from './package';
import { inputsOf, ourModel } from './setup';

const parts = ['gemm', 'stack', 'threads', 'loop'] as const;
const { values: options } = parseArgs({
  options: {
    parts: { type: 'string', default: parts.join(',') },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const asked = options.parts.split(',');
if (asked.some((part) => !parts.includes(part as (typeof parts)[number]))) {
  console.error(`bench engine: expected parts among ${parts.join(', ')}, got "${options.parts}"`);
  process.exit(2);
}
/** Microseconds of one run on the event loop. */
const loopLimit = 100;

/** One line: what, where, the figure and its unit, what else is known. */
interface Row {
  part: string;
  what: string;
  isa?: string;
  value: number;
  unit: string;
  /** The figure that is asked for, where one is. */
  goal?: number;
  detail: Record<string, number | string>;
}

function gemmRows(binary: string): Row[] {
  const { status, stdout } = capture(binary, ['kernels', '3', options.quick ? '5' : '15', 'gemm 128', 'gemm 256']);
  if (status !== 0) throw new Error('hpformer_native kernels failed: a product did not agree with its formula');
  const { rows } = JSON.parse(stdout) as {
    rows: { kernel: string; isa: string; percent: number | null; gflops: number; ceiling: number }[];
  };
  return rows
    .filter(({ kernel, percent }) => /^gemm \d+( .* tiles)?$/.test(kernel) && percent !== null)
    .map(({ kernel, isa, percent, gflops, ceiling }) => ({
      part: 'gemm',
      what: kernel,
      isa,
      value: percent!,
      unit: '% of the multiply-add peak',
      goal: 90,
      detail: { gflops, ceiling },
    }));
}

/** Counts of this very program, by level and model: counted once, since they never change and take minutes. */
class Counted {
  private readonly file: string;
  private readonly known: Record<string, InstructionCounts>;
  private kinds: ReturnType<typeof disassembly> | undefined;

  constructor(
    private readonly binary: string,
    private readonly env: NodeJS.ProcessEnv,
  ) {
    const { mtimeMs, size } = statSync(binary);
    this.file = `${binary}.${size}-${Math.round(mtimeMs)}.counts.json`;
    this.known = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')) : {};
  }

  of(model: string): InstructionCounts {
    const key = `${this.env.HPFORMER_ISA} ${model}`;
    if (!this.known[key]) {
      console.error(`bench engine: counting the instructions of ${model} ...`);
      this.kinds ??= disassembly(
        spawnSync('objdump', ['-d', '--no-show-raw-insn', this.binary], { encoding: 'utf8', maxBuffer: 1 << 28 })
          .stdout,
      );
      this.known[key] = count(this.binary, model, this.env, this.kinds);
      writeFileSync(this.file, JSON.stringify(this.known));
    }
    return this.known[key];
  }
}

/** Counts of one run of a model, by callgrind. */
function count(
  binary: string,
  model: string,
  env: NodeJS.ProcessEnv,
  kinds: ReturnType<typeof disassembly>,
): InstructionCounts {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-engine-'));
  try {
    const out = join(folder, 'out');
    const args = ['--tool=callgrind', `--callgrind-out-file=${out}`, '--dump-instr=yes', '--compress-pos=no'];
    args.push('--compress-strings=no', '--toggle-collect=hpformer_counted_stack', binary, 'count-stack', model);
    const { status, stderr } = spawnSync('valgrind', args, { encoding: 'utf8', env });
    if (status !== 0) throw new Error(`callgrind of the model ${model} failed:\n${stderr}`);
    return countKinds(readFileSync(out, 'utf8'), 'hpformer_native', kinds);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function stackRows(binary: string): Row[] {
  const missing = ['valgrind', 'objdump'].filter((tool) => spawnSync(tool, ['--version']).status !== 0);
  if (missing.length > 0) {
    console.error(`bench engine: the part "stack" was left out: no ${missing.join(' and no ')} here`);
    return [];
  }
  const identity = JSON.parse(capture(binary, ['identity']).stdout) as { isa: string };
  // Valgrind knows AVX2 and nothing above it.
  const level = /^(baseline|avx2|neon)$/.test(identity.isa) ? identity.isa : 'avx2';
  const env = { ...process.env, HPFORMER_ISA: level, HPFORMER_THREADS: '1' };
  const names = options.quick ? ['decompensation', 'image'] : ['decompensation', 'text', 'image', 'long'];
  const counted = new Counted(binary, env);
  for (const name of names) counted.of(name);
  const timed = spawnSync(binary, ['stack', options.quick ? '5' : '15', ...names], { encoding: 'utf8', env });
  if (timed.status !== 0) throw new Error(`hpformer_native stack failed: ${timed.stdout}${timed.stderr}`);
  const { isa, rows } = JSON.parse(timed.stdout) as {
    isa: string;
    rows: ({ model: string; steps: number; ms: number } & Rates)[];
  };
  return rows.map(({ model, steps, ms, ...rates }) => {
    const counts = counted.of(model);
    const bound = boundOf(counts, rates);
    const perToken = (count: number) => Math.round(count / steps);
    return {
      part: 'stack',
      what: `${model}, ${steps} steps, one thread`,
      isa,
      value: (100 * bound) / ms,
      unit: '% of its bound',
      goal: 80,
      detail: {
        ms,
        boundMs: bound,
        percentMultiplies: (100 * counts.multiply) / rates.multiplyRate / 1e6 / ms,
        multipliesPerToken: perToken(counts.multiply),
        otherVectorPerToken: perToken(counts.other),
        instructionsPerToken: perToken(counts.all),
      },
    };
  });
}

const mortality = cases.find(({ name }) => name === 'mortality')!;

async function threadRows(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const batch of options.quick ? [64, 256] : [64, 128, 256, 512, 1024]) {
    const { config, feeds } = inputsOf(mortality, batch);
    const models = [await ourModel(config, 1), await ourModel(config, 2)];
    const contestants = models.map((model, i) => ({ name: String(i + 1), call: () => model.run(feeds) }));
    const [one, two] = await interleaved(contestants, options.quick ? 3 : 9, 60);
    for (const model of models) model.dispose();
    rows.push({
      part: 'threads',
      what: `mortality, batch ${batch}`,
      value: one!.median / two!.median,
      unit: '× from one to two threads',
      ...(batch >= 256 && { goal: 1.85 }),
      detail: { oneMs: one!.median, twoMs: two!.median },
    });
  }
  return rows;
}

/** The loop's own time of one run: what it was busy for, between one run and the next. */
async function loopRows(): Promise<Row[]> {
  const rows: Row[] = [];
  const plain = (feeds: Feeds) => {
    const shared = (feeds as { features: { data: Float32Array } }).features;
    return { features: { ...shared, data: Float32Array.from(shared.data) } } as unknown as Feeds;
  };
  for (const [batch, copied] of [
    [1, true],
    [32, true],
    [256, false],
    [1024, false],
  ] as const) {
    const { config, feeds } = inputsOf(mortality, batch);
    const model = await ourModel(config, 1);
    const input = copied ? plain(feeds) : feeds;
    const costs: number[] = [];
    const submits: number[] = [];
    for (let i = 0; i < (options.quick ? 60 : 300); i++) {
      const before = performance.eventLoopUtilization();
      const start = performance.now();
      const run = model.run(input);
      submits.push(1000 * (performance.now() - start));
      await run;
      costs.push(1000 * performance.eventLoopUtilization(before).active);
    }
    model.dispose();
    // The first calls compile JavaScript.
    const [cost, submit] = [costs, submits].map((list) => summary(list.slice(20)));
    rows.push({
      part: 'loop',
      what: `mortality, batch ${batch}, ${copied ? 'input copied at submit' : 'input in shared memory'}`,
      value: cost!.median,
      unit: 'µs of the event loop for a run',
      goal: loopLimit,
      detail: { upperQuartile: cost!.high, submit: submit!.median },
    });
  }
  return rows;
}

const figure = (x: number) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));

async function main(): Promise<void> {
  const rows: Row[] = [];
  const native = asked.some((part) => part === 'gemm' || part === 'stack');
  const binary = native ? program('native', 'hpformer_native') : '';
  const run = { gemm: () => gemmRows(binary), stack: () => stackRows(binary), threads: threadRows, loop: loopRows };
  for (const part of parts.filter((name) => asked.includes(name))) {
    for (const row of await run[part]()) {
      rows.push(row);
      const detail = Object.entries(row.detail)
        .map(([name, value]) => `${name} ${typeof value === 'number' ? figure(value) : value}`)
        .join(', ');
      const where = row.isa ? ` (${row.isa})` : '';
      const goal = row.goal === undefined ? '' : `, asked for ${row.part === 'loop' ? '<' : '≥'} ${row.goal}`;
      console.log(
        `${`${row.what}${where}`.padEnd(52)} ${figure(row.value).padStart(6)} ${row.unit}${goal}   ${detail}`,
      );
    }
  }
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ rows }, null, 2)}\n`);
  const slow = rows.filter(({ part, value }) => part === 'loop' && !(value < loopLimit));
  for (const { what, value } of slow)
    console.error(`bench engine: ${what}: expected less than ${loopLimit} µs of the event loop, got ${figure(value)}`);
  process.exit(slow.length > 0 ? 1 : 0);
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
