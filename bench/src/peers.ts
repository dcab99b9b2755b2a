/**
 * `npm run bench:peers [-- --cases a,b --quick --json FILE --precision float32,bfloat16 --threads 2 --rounds N]`: the package
 * through its public API against onnxruntime-node in one run: same weights, same threads, outputs compared first, then
 * interleaved repetitions. Prints the ratio of medians.
 */
import { parseArgs } from 'node:util';
import { amxProbe } from './amx';
import { type Case, cases, type inputOf } from './cases';
import { type Contestant, interleaved, type Timing } from './measure';
import { fastest, type OrtChoice, open } from './ort';
import { type Config, type Model, type OnnxVariant, onnx, weightsOf } from './package';
import { casesNamed, finish, inputsOf, ourModel, type Row } from './setup';
import { transformerOnnx } from './transformer';

interface PeerRow extends Row {
  /** Ratios at the quartiles, the worse for ours and the better. */
  spread: [number, number];
  calls: { ours: number; theirs: number };
  int8?: { opponent: string; theirs: number; ratio: number; maxError: number };
  /** Where there is AMX: TFLOP/s of one core beside our repetitions in the fast state, median. */
  amxTflops?: number;
  /** What the probe said beside each of our repetitions, how many there were, and how many in the fast state count. */
  amx?: { perRepetition: number[]; repetitions: number; fast: number; theirFast: number };
}

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string' },
    precision: { type: 'string', default: 'float32,bfloat16' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const rounds = Number(options.rounds ?? (options.quick ? 3 : 9));
const asked = casesNamed(options.cases?.split(',') ?? cases.map((c) => c.name));
const precisions = options.precision.split(',');
if (!precisions.every((p) => p === 'float32' || p === 'bfloat16') || !(threads >= 1) || !(rounds >= 1)) {
  console.error('bench:peers: expected precisions among float32 and bfloat16, and threads and rounds of at least 1');
  process.exit(2);
}

/** Largest difference of two outputs, and the root mean square of difference and reference. */
function difference(ours: ArrayLike<number>, theirs: ArrayLike<number>): { max: number; rms: number; scale: number } {
  if (ours.length !== theirs.length) throw new Error(`outputs differ in size: ${ours.length} and ${theirs.length}`);
  let max = 0;
  let error = 0;
  let reference = 0;
  for (let i = 0; i < ours.length; i++) {
    const gap = Math.abs(ours[i]! - theirs[i]!);
    max = Math.max(max, gap); // keeps a NaN
    error += gap * gap;
    reference += theirs[i]! * theirs[i]!;
  }
  return { max, rms: Math.sqrt(error / ours.length), scale: Math.sqrt(reference / ours.length) };
}

const agrees = (precision: string, gap: ReturnType<typeof difference>) =>
  precision === 'bfloat16' ? gap.rms <= 1e-2 * Math.max(1, gap.scale) : gap.max <= 1e-4 * Math.max(1, gap.scale);

const data = (value: unknown) => (value as { data: ArrayLike<number> }).data;

async function opponentFor(
  item: Case,
  config: Config,
  model: Model,
  input: ReturnType<typeof inputOf>,
): Promise<{ main: OrtChoice; int8?: OrtChoice }> {
  const trialMs = options.quick ? item.blockMs : 3 * item.blockMs;
  if (item.transformer) {
    const { embedding, hidden, heads, layers } = config;
    const features = embedding.kind === 'features' ? embedding.size : 1;
    const size = { steps: item.steps, features, hidden, heads, layers };
    const graphs = [true, false].map((fused) => ({
      label: `Transformer ${fused ? 'fused' : 'plain'}`,
      bytes: transformerOnnx(size, fused),
    }));
    return { main: await fastest(graphs, input, threads, trialMs) };
  }
  const weights = await weightsOf(model);
  const exported = (variant: OnnxVariant, contrib: boolean) => ({
    label: contrib ? `${variant}+` : variant,
    bytes: onnx().exportOnnx(config, weights, {
      variant,
      contrib,
      steps: item.steps,
      step: 'last',
      padding: false,
      tokenType: 'int32',
    }),
  });
  const graphs = item.graphs.flatMap((variant) =>
    variant === 'written' ? [exported(variant, false)] : [exported(variant, false), exported(variant, true)],
  );
  const main = await fastest(graphs, input, threads, trialMs);
  if (!item.int8) return { main };
  return { main, int8: await open(exported(item.int8, true), input, threads) };
}

async function measure(item: Case, batch: number): Promise<PeerRow[]> {
  const { config, input, feeds } = inputsOf(item, batch);
  const models: { precision: string; model: Model }[] = [];
  for (const precision of precisions) {
    if (precision === 'bfloat16' && item.kind === 'latency') continue;
    const model = await ourModel(config, threads, precision as 'float32' | 'bfloat16');
    models.push({ precision, model });
  }
  if (models.length === 0) return [];
  const { main, int8 } = await opponentFor(item, config, models[0]!.model, input);

  const theirs = data((await main.run()).logits ?? (await main.run()).probabilities).valueOf() as Float32Array;
  const gaps = await Promise.all(
    models.map(async ({ model }) => difference(data((await model.run(feeds)).logits), theirs)),
  );
  if (!item.transformer) {
    for (const [i, gap] of gaps.entries()) {
      const { precision } = models[i]!;
      if (!agrees(precision, gap)) {
        throw new Error(
          `${item.name}: ${precision} logits differ from ${main.label} by up to ${gap.max} (rms ${gap.rms})`,
        );
      }
    }
  }
  const int8Gap = int8 ? difference(data((await int8.run()).logits), theirs).max : 0;

  const probe = amxProbe();
  const ours: Contestant[] = models.map(({ precision, model }) => ({
    name: precision,
    call: item.kind === 'latency' ? () => model.runSync(feeds) : () => model.run(feeds),
  }));
  const peers: Contestant[] = [main, ...(int8 ? [int8] : [])].map(({ label, run }) => ({ name: label, call: run }));
  const timings = await interleaved([...ours, ...peers], rounds, item.blockMs, probe);
  const theirTiming = timings[ours.length]!;
  const unit = item.kind === 'latency' ? 'us' : 'sequences/s';
  const shown = (t: Timing) => (item.kind === 'latency' ? t.median * 1000 : (batch * 1000) / t.median);
  const rows = models.map(({ precision }, i): PeerRow => {
    const mine = timings[i]!;
    const row: PeerRow = {
      case: item.name,
      batch,
      threads: item.kind === 'latency' ? 1 : threads,
      precision,
      opponent: `onnxruntime-node ${main.label}`,
      ours: shown(mine),
      theirs: shown(theirTiming),
      unit,
      ratio: theirTiming.median / mine.median,
      spread: [theirTiming.low / mine.high, theirTiming.high / mine.low],
      calls: { ours: mine.calls, theirs: theirTiming.calls },
      maxError: item.transformer ? null : gaps[i]!.max,
    };
    if (int8) {
      const timing = timings[ours.length + 1]!;
      const opponent = `onnxruntime-node ${int8.label}`;
      row.int8 = { opponent, theirs: shown(timing), ratio: timing.median / mine.median, maxError: int8Gap };
    }
    if (mine.probe) {
      const { perRepetition, fast, median } = mine.probe;
      const count = (list: readonly boolean[] | undefined) => list?.filter(Boolean).length ?? 0;
      row.amxTflops = median;
      row.amx = {
        perRepetition,
        repetitions: fast.length,
        fast: count(fast),
        theirFast: count(theirTiming.probe?.fast),
      };
    }
    return row;
  });
  for (const { model } of models) model.dispose();
  await main.release();
  await int8?.release();
  return rows;
}

const number = (x: number) => (x >= 1000 ? x.toFixed(0) : x.toPrecision(4));

async function main(): Promise<PeerRow[]> {
  const rows: PeerRow[] = [];
  const line = (cells: string[]) =>
    console.log(cells.map((cell, i) => (i < 1 ? cell.padEnd(20) : cell.padStart(i === 3 ? 44 : 13))).join(' '));
  const amxColumns = amxProbe() ? ['AMX TFLOP/s', 'fast of'] : [];
  line([
    ...['case', 'batch', 'precision', 'opponent', 'ours', 'theirs', 'unit', 'ratio', 'int8 ratio', 'max error'],
    ...amxColumns,
  ]);
  for (const item of asked) {
    for (const batch of item.batches) {
      for (const row of await measure(item, batch)) {
        rows.push(row);
        const error = row.maxError === null ? 'other model' : row.maxError.toExponential(1);
        const int8 = row.int8 ? row.int8.ratio.toFixed(2) : '';
        line([
          row.case,
          String(batch),
          row.precision,
          row.opponent,
          number(row.ours),
          number(row.theirs),
          row.unit,
          `${row.ratio.toFixed(2)}x`,
          int8,
          error,
          ...(row.amx ? [row.amxTflops!.toFixed(2), `${row.amx.fast} / ${row.amx.repetitions}`] : []),
        ]);
      }
    }
  }
  return rows;
}

finish(main(), options.json);
