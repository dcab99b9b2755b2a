import { HPformerError } from '../../errors';
import { checkInteger } from '../../model/options';
import { describe } from '../../tensor/shape';
import { checkOptions, checkType } from '../check';
import { mostBins } from './discretize';

/**
 * `published`: bit for bit what the authors' scripts make, defects included. `corrected` (default): defects repaired or flagged;
 * docs/health.md names each.
 */
export type Compat = 'published' | 'corrected';

/** One line of a list file: the label known at that hour of the stay. */
export interface LabelSample {
  /** Hours since admission, above 0 and at most 262,144. */
  hours: number;
  /** Decompensation: 0 or 1. Length of stay: remaining hours. */
  label: number;
}

/** Options of the label functions. */
export interface LabelOptions {
  /** Steps to pad or cut to, at the end, 1,000,000 at most; default 504. */
  steps?: number | undefined;
  compat?: Compat | undefined;
}

/** Labels of one stay, one a step. */
export interface StepLabels {
  /** `[steps]`: 0 or 1, or the class 0…9; 0 after the end. */
  labels: Float64Array;
  /** `[steps]`: 1 where the step belongs to the stay and has a label. */
  valid: Uint8Array;
  /** The last step of the stay (of the cut stay): the one that the published readout marks. */
  step: number;
}

/** Upper edges of the length-of-stay classes 0…8 in hours; class 9 has none. */
const lengthOfStayEdges: readonly number[] = [24, 48, 72, 96, 120, 144, 168, 192, 336];

function noHours(hours: unknown): HPformerError {
  checkType('length-of-stay class', hours, 'number');
  return new HPformerError('ERR_HPFORMER_RANGE', `length-of-stay class: expected hours, got ${describe(hours)}`);
}

/**
 * Class 0…9 of a remaining time in hours; lower edges belong to the class.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, or `ERR_HPFORMER_RANGE` for NaN.
 */
export function lengthOfStayClass(hours: number): number {
  if (typeof hours !== 'number' || Number.isNaN(hours)) throw noHours(hours);
  let c = 0;
  while (c < lengthOfStayEdges.length && hours >= lengthOfStayEdges[c]!) c++;
  return c;
}

/** Checks a compat option. */
export function checkCompat(where: string, compat: Compat = 'corrected'): Compat {
  if (compat !== 'published' && compat !== 'corrected') {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `${where}: compat: expected "published" or "corrected", got ${describe(compat)}`,
    );
  }
  return compat;
}

interface Placed {
  /** Label by step, 0 where no sample lies. */
  y: Float64Array;
  /** Step of the first sample. */
  first: number;
  steps: number;
}

function place(where: string, samples: readonly LabelSample[], check: (label: number) => string | undefined): Placed {
  if (!Array.isArray(samples) || samples.length === 0) {
    throw new HPformerError('ERR_HPFORMER_INPUT', `${where}: expected at least one sample, got ${describe(samples)}`);
  }
  for (const [i, sample] of samples.entries()) {
    if (!(Number.isFinite(sample?.hours) && sample.hours > 0 && sample.hours <= mostBins)) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${where}: samples[${i}].hours: expected hours of the stay, above 0 and at most ${mostBins}, got ${describe(sample?.hours)}`,
      );
    }
    const wanted = check(sample.label);
    if (wanted !== undefined) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${where}: samples[${i}].label: expected ${wanted}, got ${describe(sample.label)}`,
      );
    }
  }
  // The reference reads list files sorted by hour, then by the label's text; the last of equal hours stays.
  const sorted = [...samples].sort((a, b) => a.hours - b.hours || a.label - b.label);
  const binOf = (hours: number): number => Math.trunc(hours - 1e-6);
  const steps = binOf(sorted.at(-1)!.hours) + 1;
  const y = new Float64Array(steps);
  for (const sample of sorted) y[binOf(sample.hours)] = sample.label;
  return { y, first: binOf(sorted[0]!.hours), steps };
}

/** As many as the command line takes. */
const mostSteps = 1_000_000;

function finish(placed: Placed, labels: ArrayLike<number>, options: LabelOptions, compat: Compat): StepLabels {
  const { steps = 504 } = options ?? {};
  checkInteger('labels: steps', steps, 1, mostSteps);
  const kept = Math.min(placed.steps, steps);
  const out: StepLabels = { labels: new Float64Array(steps), valid: new Uint8Array(steps), step: kept - 1 };
  for (let i = 0; i < kept; i++) {
    // Four steps before the first sample are by design (the rule patches them); more lie before the first event and know nothing.
    const known = compat === 'published' || placed.first <= 4 || i >= placed.first;
    out.labels[i] = known ? labels[i]! : 0;
    out.valid[i] = known ? 1 : 0;
  }
  return out;
}

/**
 * Decompensation labels of one stay: will the patient die within 24 hours, step by step. Hour t goes to step t − 1; steps 0…3, which
 * have no sample, become 1 where step 4 is 1 and the stay has at most 24 to 27 steps, as published.
 *
 * With compat `published` the steps before a late first event keep label 0 and count as valid; corrected, they are not valid.
 *
 * @param samples the list-file lines of one stay, in any order.
 * @throws HPformerError `ERR_HPFORMER_INPUT` for no samples, hours that are not above 0 or more than 262,144, labels other than 0 and 1, or (published, as there) fewer than 5 steps.
 */
export function decompensationLabels(samples: readonly LabelSample[], options: LabelOptions = {}): StepLabels {
  checkOptions('decompensation labels', options);
  const compat = checkCompat('decompensation labels', options?.compat);
  const placed = place('decompensation labels', samples, (label) =>
    label === 0 || label === 1 ? undefined : '0 or 1',
  );
  const { y, steps } = placed;
  fiveSteps('decompensation labels', steps, compat);
  if (y[4] === 1 && steps < 28) y.fill(1, Math.max(0, steps - 24), 4);
  return finish(placed, y, options, compat);
}

/**
 * Length-of-stay classes 0…9 of one stay: the remaining time, step by step. Hour t goes to step t − 1; steps 0…3, which have no sample,
 * count back from step 4 (+4.01, +3.001, +2.001, +1.001 h, as published).
 *
 * With compat `published` the steps before a late first event get class 0 and count as valid; corrected, they are not valid.
 *
 * @param samples the list-file lines of one stay (remaining hours), in any order.
 * @throws HPformerError `ERR_HPFORMER_INPUT` for no samples, hours that are not above 0 or more than 262,144, labels that are not finite, or (published, as there) fewer than 5 steps.
 */
export function lengthOfStayLabels(samples: readonly LabelSample[], options: LabelOptions = {}): StepLabels {
  checkOptions('length-of-stay labels', options);
  const compat = checkCompat('length-of-stay labels', options?.compat);
  const placed = place('length-of-stay labels', samples, (label) =>
    typeof label === 'number' && Number.isFinite(label) ? undefined : 'a number of remaining hours',
  );
  const { y, steps } = placed;
  fiveSteps('length-of-stay labels', steps, compat);
  if (steps > 4 && Math.trunc(y[0]! + y[1]! + y[2]! + y[3]!) === 0) {
    const base = y[4]!;
    y.set([base + 4.01, base + 3.001, base + 2.001, base + 1.001]);
  }
  return finish(placed, y.map(lengthOfStayClass), options, compat);
}

function fiveSteps(where: string, steps: number, compat: Compat): void {
  if (compat === 'published' && steps < 5) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${where}: expected a last sample after hour 4 (5 steps or more), got ${steps} steps`,
    );
  }
}
