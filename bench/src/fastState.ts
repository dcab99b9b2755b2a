/**
 * AMX throughput on a virtual machine flips between two states. A probe stands beside each repetition; what is reported is the median
 * over the repetitions in the fast state, and how many there were.
 */

/** Two neighbouring samples this far apart are two states; noise within a state is a few per cent. */
const gap = 1.25;

/**
 * Which samples are of the fast state: those above the widest gap, where that is a factor of 1.25 or more; all of them where there is no
 * such gap. A sample that is no positive number is never of the fast state.
 */
export function inFastState(samples: readonly number[]): boolean[] {
  const sorted = samples.filter((x) => x > 0).sort((a, b) => a - b);
  let least = sorted[0] ?? Number.POSITIVE_INFINITY;
  let widest = gap;
  for (let i = 1; i < sorted.length; i++) {
    const ratio = sorted[i]! / sorted[i - 1]!;
    // On a tie the upper gap: fewer repetitions rather than mixed ones.
    if (ratio >= widest) {
      widest = ratio;
      least = sorted[i]!;
    }
  }
  return samples.map((x) => x >= least);
}

/** What the probe says of a repetition: the slower of its samples before and after, so that a flip in the middle counts as slow. */
export function besideRepetition([before, after]: readonly [before: number, after: number]): number {
  return Math.min(before, after);
}
