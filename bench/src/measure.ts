/** Timing that survives a shared machine: interleaved blocks, medians, a pause so that nobody pays for another's spinning threads. */
import { setTimeout as pause } from 'node:timers/promises';

export interface Contestant {
  name: string;
  /** One call; may be synchronous. */
  call: () => unknown;
}

export interface Timing {
  /** Milliseconds of one call: the median over all timed calls, and the quartiles. */
  median: number;
  low: number;
  high: number;
  best: number;
  calls: number;
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

/** Runs `call` for about `ms` milliseconds and returns the time of each call. */
async function block(call: () => unknown, ms: number, most: number): Promise<number[]> {
  await pause(5);
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

/** Times all contestants in turn, `rounds` times, in alternating order. */
export async function interleaved(
  contestants: Contestant[],
  rounds: number,
  blockMs: number,
  beforeBlock?: () => void,
): Promise<Timing[]> {
  const times: number[][] = contestants.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const order = contestants.map((_, i) => (round % 2 === 0 ? i : contestants.length - 1 - i));
    for (const i of order) {
      beforeBlock?.();
      times[i]!.push(...(await block(contestants[i]!.call, blockMs, 2000)));
    }
  }
  return times.map(summary);
}
