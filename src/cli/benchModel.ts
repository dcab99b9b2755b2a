/** `hpformer bench model` and `bench scaling`: whole models through the public API. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { presets } from '../config/presets';
import type { HPformerConfig } from '../config/types';
import { HPformer } from '../model/hpformer';
import type { Feeds, ModelOptions } from '../model/types';
import { loadAddon } from '../native/load';
import { Tensor } from '../tensor/tensor';
import {
  type BenchRow,
  bounds,
  type Contestant,
  fittedExponent,
  fresh,
  interleaved,
  outputsError,
  uniform,
} from './benchTiming';
import { UsageError } from './command';

/** Default lengths of the published runs. */
const publishedSteps: Record<keyof typeof presets, number> = {
  mortality: 48,
  decompensation: 504,
  lengthOfStay: 504,
  phenotyping: 48,
  listops: 2000,
  text: 4000,
  retrieval: 4000,
  image: 1024,
  pathfinder: 1024,
};

/** Feeds of a model: features or pixels in [-1, 1), or token ids none of which is padding. */
export function feedsOf(config: HPformerConfig, batch: number, steps: number): Feeds {
  const { embedding } = config;
  const make = (seed: number): Feeds => {
    if (embedding.kind === 'features') {
      const { size } = embedding;
      return { features: new Tensor('float32', uniform(batch * steps * size, seed), [batch, steps, size]) };
    }
    const data = uniform(batch * steps, seed);
    if (embedding.kind === 'scalar') return { values: new Tensor('float32', data, [batch, steps]) };
    const { vocabulary, padding } = embedding;
    const usable = Array.from({ length: vocabulary }, (_, id) => id).filter((id) => id !== padding);
    const ids = Int32Array.from(data, (x) => usable[Math.floor(((x + 1) / 2) * usable.length)]!);
    return { tokens: new Tensor('int32', ids, [batch, steps]) };
  };
  const feeds = make(1);
  if (config.sequences === 2) {
    const { tokens, values } = make(2);
    if (tokens) feeds.tokens2 = tokens;
    if (values) feeds.values2 = values;
  }
  return feeds;
}

async function open(source: string, options: ModelOptions): Promise<HPformer> {
  if (Object.hasOwn(presets, source)) {
    return HPformer.create(presets[source as keyof typeof presets](), { ...options, seed: 2023 });
  }
  await stat(source).catch(() => {
    throw new UsageError(`expected a preset (${Object.keys(presets).join(', ')}) or a model file, got "${source}"`);
  });
  return HPformer.load(source, options);
}

/** The first `count` sequences over and over, up to `batch` of them. */
function repeated(tensor: Tensor, count: number, batch: number): Tensor {
  const size = tensor.data.length / count;
  const data = new (tensor.data.constructor as Float32ArrayConstructor)(batch * size);
  for (let b = 0; b < batch; b++) {
    const from = (b % count) * size;
    data.set((tensor.data as Float32Array).subarray(from, from + size), b * size);
  }
  return new Tensor(tensor.type, data as never, [batch, ...tensor.dims.slice(1)]);
}

/** Feeds of any batch and what they give on the reference device: some distinct sequences, over and over. */
async function expectations(model: HPformer, source: string, steps: number) {
  const count = Math.max(2, Math.min(32, Math.floor(8192 / steps))); // the reference takes its time
  const distinct = feedsOf(model.config, count, steps);
  const reference = await open(source, { device: 'reference' });
  const results: Record<string, Tensor> = await reference.run(distinct);
  reference.dispose();
  return (batch: number) => {
    const all = (tensors: Record<string, Tensor>) =>
      Object.entries(tensors).map(([name, tensor]) => [name, repeated(tensor, count, batch)] as const);
    const feeds = Object.fromEntries(all(distinct as Record<string, Tensor>)) as Feeds;
    const outputs = Object.fromEntries(all(results).map(([name, { data }]) => [name, data as Float64Array]));
    return { feeds, outputs };
  };
}

export interface ModelBench {
  rows: BenchRow[];
  figures: Record<string, number>;
}

/** Whether an error is within the bounds of the model's precision; the reference itself must give the same bits. */
const within = (error: number, { device, precision }: HPformer) =>
  device === 'reference' ? error === 0 : error <= bounds[precision as keyof typeof bounds];

/** What a whole model's row says beside its times: what its plan counts, and what it ran on. */
function planned(model: HPformer, batch: number, steps: number, threads: number) {
  const { flops, isa } = model.plan({ batch, steps }).toJSON();
  return { batch, steps, flops, precision: model.precision, threads, ...(isa !== null && { isa }) };
}

/** Latency at batch 1, throughput by batch, load time and memory of one model. */
export async function benchModel(
  source: string,
  asked: number | undefined,
  quick: boolean,
  options: ModelOptions,
): Promise<ModelBench> {
  const start = performance.now();
  const model = await open(source, options);
  const loadMs = performance.now() - start;
  const { config } = model;
  const preset = Object.hasOwn(presets, source) ? publishedSteps[source as keyof typeof presets] : undefined;
  const steps = asked ?? preset ?? config.segments.steps ?? 512;
  const of = await expectations(model, source, steps);
  const threads = options.threads ?? loadAddon().info().threads;
  const contestants: Contestant[] = [];
  const add = async (name: string, batch: number, call: (feeds: Feeds) => unknown, workers: number) => {
    const { feeds, outputs } = of(batch);
    const error = outputsError((await call(feeds)) as Record<string, Tensor>, outputs);
    const row = { name, checked: within(error, model), error, ...planned(model, batch, steps, workers) };
    contestants.push({ row, call: fresh(call, feeds) });
    return feeds;
  };
  const run = (feeds: Feeds) => model.run(feeds);
  await add('runSync batch 1', 1, (feeds) => model.runSync(feeds), 1);
  const one = await add('run batch 1', 1, run, threads);
  // Larger batches until one call takes about a second.
  const single = await timeOnce(() => model.run(one));
  const limit = quick ? 100 : 1000;
  let largest = 1;
  for (const batch of [8, 32, 256, 1024]) {
    if (single * batch > limit * 4) break;
    await add(`run batch ${batch}`, batch, run, threads);
    largest = batch;
  }
  const rows = await interleaved(contestants, quick ? 2 : 6, quick ? 20 : 150);
  const { loaded, grown } = memoryOf({ source, batch: largest, steps, options });
  const figures = {
    loadMs,
    loadedBytes: loaded,
    [`peakBytesOfARunOf${largest}`]: grown,
    parameters: model.parameterCount.used,
  };
  model.dispose();
  return { rows, figures };
}

async function timeOnce(call: () => Promise<unknown>): Promise<number> {
  await call();
  const start = performance.now();
  await call();
  return performance.now() - start;
}

/** The length that `bench scaling` begins with. */
export const shortest = 64;

/** The model of `bench scaling`: hidden 128, 6 layers, mean readout. */
export const scalingConfig = () => presets.image({ hidden: 128, layers: 6, segments: { steps: null } });

/** What `measureMemory` measures. No source: the model of `bench scaling`. */
export interface MemoryCase {
  source?: string;
  batch: number;
  steps: number;
  options: ModelOptions;
}

/** Bytes of resident memory: a loaded model's, and the growth of the peak during its first run. */
export interface Memory {
  loaded: number;
  grown: number;
}

/**
 * Loads a model and runs it once, for a process that has done nothing else. What is there before the peak is taken: the model, its input
 * and, where its length is free, a run over 64 steps (threads and their stacks).
 */
export async function measureMemory({ source, batch, steps, options }: MemoryCase): Promise<Memory> {
  const rss = () => process.memoryUsage.rss();
  const before = rss();
  const model =
    source === undefined
      ? await HPformer.create(scalingConfig(), { ...options, seed: 2023 })
      : await open(source, options);
  const loaded = Math.max(0, rss() - before);
  const feeds = feedsOf(model.config, batch, steps);
  if (source === undefined) await model.run(feedsOf(model.config, 1, shortest));
  // Linux can start the peak anew; elsewhere the peak so far is the base.
  let peak = () => process.resourceUsage().maxRSS * 1024;
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    peak = () => 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
  } catch {
    // not Linux
  }
  const base = peak();
  await model.run(feeds);
  const grown = Math.max(0, peak() - base);
  model.dispose();
  return { loaded, grown };
}

/** The same in a process of its own: what ran before, the reference above all, does not hide it. */
function memoryOf(what: MemoryCase): Memory {
  const compiled = path.join(__dirname, '..', '..', 'dist', 'cli', 'benchModel.js');
  const script = `require(${JSON.stringify(compiled)}).measureMemory(${JSON.stringify(what)})
    .then((memory) => { console.log(JSON.stringify(memory)); process.exit(0); });`;
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' })) as Memory;
}

/** Largest exponent of time and of memory that is called linear: L log L from 1K to 64K has 1.1. */
export const exponentBound = 1.1;

/** The longest sequence that `bench scaling` compares with the double-precision reference, which takes 50 times as long. */
const longestChecked = 4096;

/**
 * Time and memory from L = 64 to `most` for one sequence; fitted exponents (1: linear) and the spread of the cost of one token from
 * L = 1024 on, and what one run over the longest sequence adds to the peak resident set.
 */
export async function benchScaling(most: number, quick: boolean, options: ModelOptions): Promise<ModelBench> {
  const config = scalingConfig();
  const reference = await HPformer.create(config, { device: 'reference', seed: 2023 });
  const model = await HPformer.create(config, { ...options, seed: 2023 });
  const threads = options.threads ?? loadAddon().info().threads;
  const contestants: Contestant[] = [];
  for (let steps = shortest; steps <= most; steps *= 2) {
    const feeds = feedsOf(config, 1, steps);
    const whole = steps <= longestChecked;
    const compared = whole ? feeds : feedsOf(config, 1, longestChecked);
    const { logits, probabilities } = await reference.run(compared);
    const error = outputsError(await model.run(compared), {
      logits: logits.data as Float64Array,
      ...(probabilities && { probabilities: probabilities.data as Float64Array }),
    });
    const holds = within(error, model);
    const row = {
      name: `L=${steps}`,
      checked: holds && whole,
      ...(holds && !whole && { checkedSteps: longestChecked }),
      error,
      ...planned(model, 1, steps, threads),
    };
    contestants.push({ row, call: fresh((input) => model.run(input), feeds) });
  }
  reference.dispose();
  const timed = await interleaved(contestants, quick ? 3 : 9, quick ? 10 : 60);
  model.dispose();
  const rows = timed.map((row) => ({ ...row, bytes: memoryOf({ batch: 1, steps: row.steps!, options }).grown }));
  return { rows, figures: growth(rows) };
}

/** What a run over lengths shows of growth. */
export function growth(rows: readonly { steps?: number; ms: number; bytes: number }[]): Record<string, number> {
  const figures: Record<string, number> = {};
  const long = rows.filter(({ steps }) => steps! >= 1024);
  if (long.length >= 2) {
    figures.timeExponentFrom1024 = fittedExponent(long.map(({ steps, ms }) => [steps!, ms]));
    const grown = long.filter(({ bytes }) => bytes > 0);
    if (grown.length >= 2) figures.memoryExponentFrom1024 = fittedExponent(grown.map((r) => [r.steps!, r.bytes]));
    const perToken = long.map(({ steps, ms }) => (1e6 * ms) / steps!);
    figures.leastNanosecondsPerToken = Math.min(...perToken);
    figures.mostNanosecondsPerToken = Math.max(...perToken);
    figures.mostOverLeast = Math.max(...perToken) / Math.min(...perToken);
  }
  const last = rows.at(-1);
  if (last) figures[`peakGrowthBytesAt${last.steps}`] = last.bytes;
  return figures;
}

/** The exponents of a run beyond the bound, in words; none: it grows as asked. */
export const beyondBound = (figures: Readonly<Record<string, number>>): string[] =>
  (['time', 'memory'] as const).flatMap((what) => {
    const exponent = figures[`${what}ExponentFrom1024`];
    return exponent !== undefined && !(exponent <= exponentBound)
      ? [`${what} grows with L to the power ${exponent.toFixed(3)}, expected at most ${exponentBound}`]
      : [];
  });
