import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkFields, checkList, isList } from '../check';
import { BinaryRanking } from './binary';

/** Quality of class probabilities. */
export interface MulticlassMetrics {
  /** Cohen's kappa with linear weights over the classes that occur in truth or prediction; NaN when only one occurs. */
  kappa: number;
  /** AUROC of all (row, class) pairs pooled. */
  microAuroc: number;
  /** Mean of the one-against-rest AUROCs; NaN when a class has no row (the reference refuses that). */
  macroAuroc: number;
}

/** Class scores: one array a row, a tensor `[rows, classes]`, or the same flattened row by row. */
export type ClassScores =
  | ArrayLike<ArrayLike<number>>
  | ArrayLike<number>
  | { readonly data: ArrayLike<number>; readonly dims: readonly number[] };

function wrong(message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_INPUT', `metrics: ${message}`);
}

function flatten(scores: ClassScores, rows: number): { data: ArrayLike<number>; classes: number } {
  if (typeof scores === 'object' && scores !== null && 'dims' in scores) {
    checkFields('metrics: scores', scores, { data: 'list', dims: 'array' });
    const classes = scores.dims.at(-1) ?? 0;
    if (typeof classes !== 'number' || rows * classes !== scores.data.length) {
      throw wrong(`scores: expected ${rows} rows, got dims ${describe(scores.dims)}`);
    }
    return { data: scores.data, classes };
  }
  checkList('metrics', 'scores', scores);
  const first = scores[0];
  if (typeof first === 'number') {
    if (scores.length % rows !== 0) throw wrong(`scores: expected a multiple of ${rows} numbers, got ${scores.length}`);
    return { data: scores as ArrayLike<number>, classes: scores.length / rows };
  }
  const table = scores as ArrayLike<ArrayLike<number>>;
  if (table.length !== rows) throw wrong(`scores: expected ${rows} rows, one per label, got ${table.length}`);
  if (!isList(first)) throw wrong(`scores: expected numbers or rows of numbers, got ${describe(first)}`);
  const classes = first.length;
  const data = new Float64Array(rows * classes);
  for (let i = 0; i < rows; i++) {
    const row = table[i];
    if (row?.length !== classes) throw wrong(`scores[${i}]: expected ${classes} classes, got ${describe(row?.length)}`);
    for (let c = 0; c < classes; c++) {
      const score: unknown = row[c];
      data[i * classes + c] = typeof score === 'number' ? score : Number.NaN; // refused by the ranking
    }
  }
  return { data, classes };
}

/** Cohen's kappa, weights |i − j| where i and j number the classes that occur. */
function linearKappa(truth: ArrayLike<number>, predicted: ArrayLike<number>): number {
  const present = [...new Set([...Array.from(truth), ...Array.from(predicted)])].sort((a, b) => a - b);
  const index = new Map(present.map((value, i) => [value, i]));
  const size = present.length;
  const trueCount = new Float64Array(size);
  const predictedCount = new Float64Array(size);
  let observed = 0;
  for (let i = 0; i < truth.length; i++) {
    const a = index.get(truth[i]!)!;
    const b = index.get(predicted[i]!)!;
    trueCount[a]!++;
    predictedCount[b]!++;
    observed += Math.abs(a - b);
  }
  let expected = 0;
  for (let a = 0; a < size; a++) {
    for (let b = 0; b < size; b++) expected += Math.abs(a - b) * trueCount[a]! * predictedCount[b]!;
  }
  return 1 - observed / (expected / truth.length);
}

/**
 * Linear kappa of the most probable class (the first of equals), micro and macro AUROC, as the authors' length-of-stay script computes them.
 *
 * @param labels class numbers 0 … classes − 1, one a row.
 * @param scores class scores, see {@link ClassScores}; at least two classes.
 * @throws HPformerError `ERR_HPFORMER_INPUT` for shapes that do not agree, labels out of range, scores that are not finite.
 */
export function multiclassMetrics(labels: ArrayLike<number>, scores: ClassScores): MulticlassMetrics {
  checkList('metrics', 'labels', labels);
  const rows = labels.length;
  if (rows === 0) throw wrong('expected at least one row, got none');
  const { data, classes } = flatten(scores, rows);
  if (classes < 2) throw wrong(`scores: expected at least 2 classes, got ${classes}`);
  const predicted = new Int32Array(rows);
  const onehot = new Uint8Array(rows * classes);
  const count = new Int32Array(classes);
  for (let i = 0; i < rows; i++) {
    const label = labels[i]!;
    if (!Number.isInteger(label) || label < 0 || label >= classes) {
      throw wrong(`labels[${i}]: expected a class 0…${classes - 1}, got ${describe(labels[i])}`);
    }
    onehot[i * classes + label] = 1;
    count[label]!++;
    let best = 0;
    for (let c = 1; c < classes; c++) if (data[i * classes + c]! > data[i * classes + best]!) best = c;
    predicted[i] = best;
  }
  const microAuroc = new BinaryRanking(onehot, data).metrics().auroc;
  let sum = 0;
  if (count.every((n) => n > 0)) {
    const column = new Float64Array(rows);
    const one = new Uint8Array(rows);
    for (let c = 0; c < classes; c++) {
      for (let i = 0; i < rows; i++) {
        column[i] = data[i * classes + c]!;
        one[i] = onehot[i * classes + c]!;
      }
      sum += new BinaryRanking(one, column).metrics().auroc;
    }
  } else {
    sum = Number.NaN;
  }
  return { kappa: linearKappa(labels, predicted), microAuroc, macroAuroc: sum / classes };
}
