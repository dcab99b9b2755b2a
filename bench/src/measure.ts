/** Timing that survives a shared machine: interleaved blocks, medians, a pause so that nobody pays for another's spinning threads. */
import { setTimeout as pause } from 'node:timers/promises';
import { besideRepetition, inFastState } from './fastState';

export interface Contestant {
  name: string;
  /** One call; may be synchronous. */
  call: () => unknown;
}

export interface Timing {
  /** Milliseconds of one call: the median over all timed calls (with a probe: of the fast repetitions), and the quartiles. */
  median: number;
  low: number;
  high: number;
  best: number;
  calls: number;
  /** With a probe: what it said beside each repetition, and which of them counted. */
  probe?: { perRepetition: number[]; fast: boolean[]; median: number };
}

const quantile = (sorted: number[], q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;

export function summary(times: number[]): Timing {
  const sorted = [...times].sort((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.25),
    high: quantile(sorted, 0.75),
    best: sorted[0]!,
    calls: sorted.length,
  };
}

/** onnxruntime's threads were seen to spin for 50 to 70 ms after a run: nobody is timed before they sleep. */
const spinMs = 100;

/** Runs `call` for about `ms` milliseconds and returns the time of each call. */
async function block(call: () => unknown, ms: number, most: number): Promise<number[]> {
  await pause(spinMs);
  await call();
  const times: number[] = [];
  const end = performance.now() + ms;
  do {
    const start = performance.now();
    const result = call();
    if (result instanceof Promise) await result;
    times.push(performance.now() - start);
  } while (performance.now() < end && times.length < most);
  return times;
}

/** Summary of the repetitions in the fast state, as the probe's samples before and after each tell it. */
export function fastSummary(
  repetitions: readonly number[][],
  samples: readonly (readonly [before: number, after: number])[],
): Timing {
  const perRepetition = samples.map(besideRepetition);
  const fast = inFastState(perRepetition);
  // A probe that failed throughout says nothing: then everything counts.
  const counted = repetitions.filter((_, i) => fast[i] || !fast.includes(true));
  const seen = perRepetition.filter((_, i) => fast[i]).sort((a, b) => a - b);
  return { ...summary(counted.flat()), probe: { perRepetition, fast, median: seen[seen.length >> 1] ?? 0 } };
}

/** Times all contestants in turn, `rounds` times, in alternating order; `probe` runs before and after every repetition. */
export async function interleaved(
  contestants: Contestant[],
  rounds: number,
  blockMs: number,
  probe?: () => number,
): Promise<Timing[]> {
  const times: number[][][] = contestants.map(() => []);
  const samples: [before: number, after: number][][] = contestants.map(() => []);
  let before = probe?.() ?? 0;
  for (let round = 0; round < rounds; round++) {
    const order = contestants.map((_, i) => (round % 2 === 0 ? i : contestants.length - 1 - i));
    for (const i of order) {
      times[i]!.push(await block(contestants[i]!.call, blockMs, 2000));
      const after = probe?.() ?? 0;
      samples[i]!.push([before, after]);
      before = after;
    }
  }
  return times.map((own, i) => (probe ? fastSummary(own, samples[i]!) : summary(own.flat())));
}
