/** Instruction counts of kernels against recorded ones. */

/** Instructions of one call, by kernel. */
export type Counts = Record<string, number>;

/** Share above the recorded count that fails. */
export const bound = 0.03;

/** One kernel of either list. */
export interface CountChange {
  kernel: string;
  text: string;
  failed: boolean;
}

/** Fails what grew by more than 3 %, and what was recorded and is gone; fewer instructions and new kernels pass. */
export function compareCounts(before: Counts, after: Counts): CountChange[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].map((kernel) => {
    const [old, now] = [before[kernel], after[kernel]];
    if (now === undefined) return { kernel, text: `recorded with ${old}, not counted any more`, failed: true };
    if (old === undefined) return { kernel, text: `${now} instructions (new)`, failed: false };
    const change = now / old - 1;
    const note = change < -bound ? '; run with --write to keep the gain' : '';
    const text = `${now} instructions (${change < 0 ? '' : '+'}${(100 * change).toFixed(2)} % of ${old}${note})`;
    return { kernel, text, failed: !(now <= old * (1 + bound)) };
  });
}
