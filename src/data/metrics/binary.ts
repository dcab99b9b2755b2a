import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkList, zeroOrOne } from '../check';

/** Ranking quality of one score against 0/1 labels. */
export interface BinaryMetrics {
  /** Area under the ROC curve: the chance that a positive outranks a negative, ties counted half. */
  auroc: number;
  /** Trapezoid area under the precision-recall curve from the point (recall 0, precision 1). Not average precision. */
  auprc: number;
  /** Largest min(recall, precision) over all distinct thresholds: Min(Se, P+) of the published tables. */
  minSensitivityPrecision: number;
}

/** One point of a curve: what is counted positive at `score >= threshold`. */
export interface ThresholdPoint {
  threshold: number;
  truePositives: number;
  falsePositives: number;
}

/**
 * Labels and scores sorted once, so that metrics of many reweightings (bootstrap samples) cost one pass each.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` for unequal lengths, no rows, a label other than 0 and 1, a score that is not finite.
 */
export class BinaryRanking {
  private readonly order: Uint32Array;
  private readonly labels: Uint8Array;
  /** 1 where a row of the sorted order is the last of its score. */
  private readonly lastOfScore: Uint8Array;
  private readonly sortedScores: Float64Array;

  constructor(labels: ArrayLike<number | boolean>, scores: ArrayLike<number>) {
    checkList('metrics', 'labels', labels);
    checkList('metrics', 'scores', scores);
    const n = labels.length;
    if (n !== scores.length) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `metrics: expected one score per label, got ${n} labels and ${scores.length} scores`,
      );
    }
    if (n === 0) throw new HPformerError('ERR_HPFORMER_INPUT', 'metrics: expected at least one row, got none');
    const plain = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      const label = zeroOrOne(labels[i]);
      if (Number.isNaN(label)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `metrics: labels[${i}]: expected 0 or 1, got ${describe(labels[i])}`,
        );
      }
      if (!Number.isFinite(scores[i])) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `metrics: scores[${i}]: expected a finite number, got ${describe(scores[i])}`,
        );
      }
      plain[i] = label;
    }
    const order = Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
    this.order = order;
    this.labels = Uint8Array.from(order, (row) => plain[row]!);
    this.sortedScores = Float64Array.from(order, (row) => scores[row]!);
    this.lastOfScore = Uint8Array.from(order, (_, i) =>
      i + 1 === n || this.sortedScores[i] !== this.sortedScores[i + 1] ? 1 : 0,
    );
  }

  /** Number of rows. */
  get rows(): number {
    return this.order.length;
  }

  /** Counts at every distinct threshold, highest first; rows count `weights[row]` times (default once). */
  curve(weights?: ArrayLike<number>): ThresholdPoint[] {
    const points: ThresholdPoint[] = [];
    let truePositives = 0;
    let falsePositives = 0;
    for (let i = 0; i < this.order.length; i++) {
      const weight = weights ? weights[this.order[i]!]! : 1;
      if (this.labels[i] === 1) truePositives += weight;
      else falsePositives += weight;
      if (this.lastOfScore[i] === 1) points.push({ threshold: this.sortedScores[i]!, truePositives, falsePositives });
    }
    return points;
  }

  /**
   * The three metrics with row i counted `weights[i]` times. All NaN where a class is absent, since neither area is defined then.
   */
  metrics(weights?: ArrayLike<number>): BinaryMetrics {
    let positives = 0;
    let negatives = 0;
    for (let i = 0; i < this.order.length; i++) {
      const weight = weights ? weights[this.order[i]!]! : 1;
      if (this.labels[i] === 1) positives += weight;
      else negatives += weight;
    }
    if (positives === 0 || negatives === 0) {
      return { auroc: Number.NaN, auprc: Number.NaN, minSensitivityPrecision: Number.NaN };
    }
    let truePositives = 0;
    let falsePositives = 0;
    let earlierTrue = 0;
    let earlierFalse = 0;
    let concordant = 0;
    let recall = 0;
    let precision = 1;
    let auprc = 0;
    let best = 0;
    for (let i = 0; i < this.order.length; i++) {
      const weight = weights ? weights[this.order[i]!]! : 1;
      if (this.labels[i] === 1) truePositives += weight;
      else falsePositives += weight;
      if (this.lastOfScore[i] === 0) continue;
      const newTrue = truePositives - earlierTrue;
      const newFalse = falsePositives - earlierFalse;
      if (newTrue + newFalse === 0) continue; // this score is not in the sample
      // Integers below 2^53 (halves below 2^52), so the ROC area is exact up to its one division.
      concordant += newFalse * (earlierTrue + 0.5 * newTrue);
      const nextRecall = truePositives / positives;
      const nextPrecision = truePositives / (truePositives + falsePositives);
      auprc += (nextRecall - recall) * (precision + nextPrecision) * 0.5;
      best = Math.max(best, Math.min(nextRecall, nextPrecision));
      recall = nextRecall;
      precision = nextPrecision;
      earlierTrue = truePositives;
      earlierFalse = falsePositives;
    }
    return { auroc: concordant / (positives * negatives), auprc, minSensitivityPrecision: best };
  }
}

/**
 * AUROC, trapezoid AUPRC and Min(Se, P+) as the authors' scripts compute them with scikit-learn, unrounded (they round to 6 decimals).
 *
 * @param labels 0 or 1 (or booleans), one a row.
 * @param scores any finite number a row, higher = more likely positive.
 * @throws HPformerError `ERR_HPFORMER_INPUT` as {@link BinaryRanking}, and when only one class occurs.
 */
export function binaryMetrics(labels: ArrayLike<number | boolean>, scores: ArrayLike<number>): BinaryMetrics {
  const metrics = new BinaryRanking(labels, scores).metrics();
  if (Number.isNaN(metrics.auroc)) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `metrics: expected labels of both classes, got only ${Number(labels[0])} in ${labels.length} rows`,
    );
  }
  return metrics;
}
