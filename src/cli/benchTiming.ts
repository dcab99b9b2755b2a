/** Timing and the saved form of `hpformer bench`. */
import os from 'node:os';
import type { Feeds } from '../model/types';
import { Tensor } from '../tensor/tensor';
import { packageVersion } from './doctor';

/** Bounds of design section 8: float32 and bfloat16 results against the float64 reference. */
export const bounds = { float32: 2e-5, bfloat16: 3e-2 } as const;

/** One measurement. Times are milliseconds of one call. */
export interface BenchRow {
  /** What was timed; rows of two runs with equal names are compared. */
  name: string;
  /** Median, and the quartiles as spread. */
  ms: number;
  low: number;
  high: number;
  repetitions: number;
  /** All outputs of the very call that is timed were compared with the reference before, and agreed. */
  checked: boolean;
  /** Where a shorter sequence was compared instead, and agreed: its steps. `checked` is false then; both are where nothing agreed. */
  checkedSteps?: number;
  /** Largest error of that comparison. */
  error?: number;
  /** 99th percentile, where single calls were timed. */
  p99?: number;
  /** Operations and bytes of one call, and what of the ceiling in the same run was reached. */
  flops?: number;
  bytes?: number;
  gflops?: number;
  gbs?: number;
  percent?: number;
  /** GB/s as a part of the copy bandwidth of the same run, in per cent. */
  percentCopy?: number;
  /** Steps L and sequences B, where there are any. */
  steps?: number;
  batch?: number;
  perSecond?: number;
  isa?: string;
  device?: string;
  /** Of whole models: threads, and what their products are made of. */
  threads?: number;
  precision?: string;
}

/** True where a comparison with the reference failed. */
export const isWrong = ({ checked, checkedSteps }: Pick<BenchRow, 'checked' | 'checkedSteps'>): boolean =>
  !checked && !checkedSteps;

/** A run as `--json` prints it and `bench compare` reads it. */
export interface BenchRun {
  bench: string;
  hpformer: string;
  machine: { cpu: string; cores: number; node: string; platform: string };
  rows: BenchRow[];
  /** Ceilings measured in the same run, where the probe was at hand. */
  ceilings?: Ceilings;
  /** Numbers about the run as a whole (load time, peak memory, fitted exponents). */
  figures?: Record<string, number | string>;
}

/** Machine ceilings, as `bench/native` prints them. */
export interface Ceilings {
  levels: { isa: string; fma1: number; fma2: number }[];
  copy: { bytes: number; gbs1: number; gbs2: number }[];
  amx: number;
}

/** A run's head. */
export function newRun(bench: string, rows: BenchRow[]): BenchRun {
  return {
    bench,
    hpformer: packageVersion(),
    machine: {
      cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
      cores: os.availableParallelism(),
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    },
    rows,
  };
}

/** One thing to time: by its calls, or by a clock of its own, which gives the milliseconds of so many calls. */
export type Contestant = {
  row: Omit<BenchRow, 'ms' | 'low' | 'high' | 'repetitions'>;
} & ({ call: () => unknown } | { times: (repetitions: number) => Iterable<number> });

const at = (sorted: readonly number[], q: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;

async function block(call: () => unknown, ms: number): Promise<number[]> {
  const times: number[] = [];
  const end = performance.now() + ms;
  do {
    const start = performance.now();
    const result = call();
    if (result instanceof Promise) await result;
    times.push(performance.now() - start);
  } while (performance.now() < end && times.length < 5000);
  return times;
}

/**
 * Times all contestants in turn, `rounds` times, each for about `blockMs` after one untimed call.
 * @returns a row each: median, quartiles and 99th percentile over all calls.
 */
export async function interleaved(
  contestants: readonly Contestant[],
  rounds: number,
  blockMs: number,
): Promise<BenchRow[]> {
  const times: number[][] = contestants.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contestant] of contestants.entries()) {
      if ('times' in contestant) {
        // As many as fill the block, as far as the calls so far tell.
        const least = Math.min(...times[i]!);
        const repetitions = Math.max(1, Math.min(100, Math.floor(blockMs / least) || 1));
        times[i]!.push(...contestant.times(repetitions));
        continue;
      }
      await block(contestant.call, 0);
      times[i]!.push(...(await block(contestant.call, blockMs)));
    }
  }
  return contestants.map(({ row }, i) => {
    const sorted = times[i]!.sort((a, b) => a - b);
    const ms = at(sorted, 0.5);
    const out: BenchRow = {
      ...row,
      ms,
      low: at(sorted, 0.25),
      high: at(sorted, 0.75),
      p99: at(sorted, 0.99),
      repetitions: sorted.length,
    };
    if (row.batch !== undefined) out.perSecond = (row.batch * 1000) / ms;
    if (row.flops !== undefined) out.gflops = row.flops / ms / 1e6;
    if (row.bytes !== undefined) out.gbs = row.bytes / ms / 1e6;
    return out;
  });
}

/**
 * A call that takes another copy of its input each time, so that what is timed is not what the last call left in the caches: as many
 * copies as 32 MB hold, 2 to 8.
 */
export function rotating<T>(
  call: (input: T) => unknown,
  input: T,
  copy: (input: T) => T,
  bytes: number,
): () => unknown {
  const count = Math.min(8, Math.max(2, Math.floor(2 ** 25 / bytes)));
  const inputs = Array.from({ length: count }, (_, i) => (i === 0 ? input : copy(input)));
  let next = 0;
  return () => call(inputs[next++ % count]!);
}

/** A tensor with data of its own. */
export const copyOf = (tensor: Tensor): Tensor =>
  new Tensor(tensor.type, tensor.data.slice() as never, [...tensor.dims]);

/** `call` on one of several copies of the feeds in turn. */
export function fresh<F extends Feeds>(call: (feeds: F) => unknown, feeds: F): () => unknown {
  const tensors = Object.entries(feeds) as [string, Tensor][];
  const bytes = tensors.reduce((sum, [, { data }]) => sum + data.byteLength, 0);
  const copy = () => Object.fromEntries(tensors.map(([name, tensor]) => [name, copyOf(tensor)])) as unknown as F;
  return rotating(call, feeds, copy, bytes);
}

/** Slope of the least-squares line through (ln x, ln y): the exponent of a power law. */
export function fittedExponent(points: readonly (readonly [x: number, y: number])[]): number {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  const mean = (index: 0 | 1) => logs.reduce((sum, point) => sum + point[index], 0) / logs.length;
  const [mx, my] = [mean(0), mean(1)];
  const above = logs.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  const below = logs.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
  return above / below;
}

/** Largest difference of two results, in units of max(1, root mean square of the second); NaN never passes for small. */
export function errorOf(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = got.length === expected.length ? 0 : Number.NaN;
  let square = 0;
  for (let i = 0; i < expected.length; i++) {
    const gap = Math.abs(got[i]! - expected[i]!);
    worst = Math.max(worst, gap); // keeps a NaN
    square += expected[i]! ** 2;
  }
  return worst / Math.max(1, Math.sqrt(square / Math.max(1, expected.length)));
}

/** The worst `errorOf` over all outputs that are expected; NaN where one is missing. */
export function outputsError(
  got: Readonly<Record<string, { data: ArrayLike<unknown> }>>,
  expected: Readonly<Record<string, ArrayLike<number>>>,
): number {
  const errors = Object.entries(expected).map(([name, values]) =>
    errorOf((got[name]?.data ?? []) as ArrayLike<number>, values),
  );
  return Math.max(...errors); // keeps a NaN
}

/** Numbers in [-1, 1) from a linear congruential generator: the same input everywhere. */
export function uniform(count: number, seed = 12345): Float32Array {
  const data = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    data[i] = (state >>> 8) / 8388608 - 1;
  }
  return data;
}
