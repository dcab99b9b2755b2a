/** `hpformer bench model` and `bench scaling`: whole models through the public API. */
import { execFileSync } from 'node:child_process';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { presets } from '../config/presets';
import type { HPformerConfig } from '../config/types';
import { HPformer } from '../model/hpformer';
import type { Feeds, ModelOptions } from '../model/types';
import { Tensor } from '../tensor/tensor';
import {
  type BenchRow,
  bounds,
  type Contestant,
  copyOf,
  errorOf,
  fittedExponent,
  interleaved,
  rotating,
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

const rss = () => process.memoryUsage.rss();

/** Worst relative error of one small batch against the reference device. */
async function check(source: string, model: HPformer, steps: number): Promise<number> {
  const reference = await open(source, { device: 'reference' });
  const feeds = feedsOf(model.config, 2, steps);
  const expected = (await reference.run(feeds)).logits.data;
  reference.dispose();
  return errorOf((await model.run(feeds)).logits.data, expected);
}

/** `call` on one of several copies of the feeds in turn. */
function fresh(call: (feeds: Feeds) => unknown, feeds: Feeds): () => unknown {
  const tensors = Object.entries(feeds) as [keyof Feeds, Tensor][];
  const bytes = tensors.reduce((sum, [, { data }]) => sum + data.byteLength, 0);
  const copy = () => Object.fromEntries(tensors.map(([name, tensor]) => [name, copyOf(tensor)])) as Feeds;
  return rotating(call, feeds, copy, bytes);
}

export interface ModelBench {
  rows: BenchRow[];
  figures: Record<string, number>;
}

/** Latency at batch 1, throughput by batch, load time and memory of one model. */
export async function benchModel(
  source: string,
  asked: number | undefined,
  quick: boolean,
  options: ModelOptions,
): Promise<ModelBench> {
  const before = rss();
  const start = performance.now();
  const model = await open(source, options);
  const loadMs = performance.now() - start;
  const loaded = rss();
  const { config } = model;
  const preset = Object.hasOwn(presets, source) ? publishedSteps[source as keyof typeof presets] : undefined;
  const steps = asked ?? preset ?? config.segments.steps ?? 512;
  const error = await check(source, model, steps);
  const checked =
    error <= bounds[model.precision as keyof typeof bounds] || (model.device === 'reference' && error === 0);
  const one = feedsOf(config, 1, steps);
  const contestants: Contestant[] = [
    {
      row: { name: 'runSync batch 1', checked, error, steps, batch: 1 },
      call: fresh((input) => model.runSync(input), one),
    },
    { row: { name: 'run batch 1', checked, error, steps, batch: 1 }, call: fresh((input) => model.run(input), one) },
  ];
  // Larger batches until one call takes about a second.
  const single = await timeOnce(() => model.run(one));
  const limit = quick ? 100 : 1000;
  for (const batch of [8, 32, 256, 1024]) {
    if (single * batch > limit * 4) break;
    const feeds = feedsOf(config, batch, steps);
    contestants.push({
      row: { name: `run batch ${batch}`, checked, error, steps, batch },
      call: fresh((input) => model.run(input), feeds),
    });
  }
  const rows = await interleaved(contestants, quick ? 2 : 6, quick ? 20 : 150);
  const figures = {
    loadMs,
    loadedBytes: loaded - before,
    peakBytesOverLoaded: Math.max(0, process.resourceUsage().maxRSS * 1024 - loaded),
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

/**
 * Growth of the peak resident set during the first run over `steps`, in a process of its own: what earlier lengths took does not hide it.
 * The loaded model, its input and a run over 64 steps (threads and their stacks) are there before.
 */
function peakGrowth(steps: number, options: ModelOptions): number {
  const script = `
    const { readFileSync, writeFileSync } = require('node:fs');
    const { HPformer } = require(${JSON.stringify(path.join(__dirname, '..', 'index.js'))});
    const { feedsOf, scalingConfig } = require(${JSON.stringify(__filename)});
    (async () => {
      const model = await HPformer.create(scalingConfig(), { ...${JSON.stringify(options)}, seed: 2023 });
      await model.run(feedsOf(model.config, 1, 64));
      const feeds = feedsOf(model.config, 1, ${steps});
      // Linux can start the peak anew; elsewhere the peak so far is the base.
      let peak = () => process.resourceUsage().maxRSS * 1024;
      try {
        writeFileSync('/proc/self/clear_refs', '5');
        peak = () => 1024 * Number(/VmHWM:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
      } catch {}
      const before = peak();
      await model.run(feeds);
      console.log(Math.max(0, peak() - before));
      process.exit(0);
    })();`;
  return Number(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }));
}

/**
 * Time and memory from L = 64 to `most` for one sequence; fitted exponents (1: linear) and the spread of the cost of one token from
 * L = 1024 on, and what one run over the longest sequence adds to the peak resident set.
 */
export async function benchScaling(most: number, quick: boolean, options: ModelOptions): Promise<ModelBench> {
  const config = scalingConfig();
  const reference = await HPformer.create(config, { device: 'reference', seed: 2023 });
  const model = await HPformer.create(config, { ...options, seed: 2023 });
  const contestants: Contestant[] = [];
  for (let steps = shortest; steps <= most; steps *= 2) {
    const feeds = feedsOf(config, 1, steps);
    // Beyond 4096 the double-precision reference takes longer than the timing; the kernels do not change with L.
    const small = steps <= 4096 ? feeds : feedsOf(config, 1, 4096);
    const error = errorOf((await model.run(small)).logits.data, (await reference.run(small)).logits.data);
    const checked = error <= bounds[model.precision as keyof typeof bounds] || model.device === 'reference';
    contestants.push({ row: { name: `L=${steps}`, checked, error, steps, batch: 1 }, call: () => model.run(feeds) });
  }
  reference.dispose();
  const timed = await interleaved(contestants, quick ? 3 : 9, quick ? 10 : 60);
  model.dispose();
  const rows = timed.map((row) => ({ ...row, bytes: peakGrowth(row.steps!, options) }));
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
  return { rows, figures };
}
