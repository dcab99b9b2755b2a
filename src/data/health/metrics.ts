import { binaryMetrics, bootstrapIntervals, multiclassMetrics } from '../metrics';

/** The metrics of the published tables: `metrics.binary(labels, scores)`, `metrics.multiclass(labels, scores)`, and intervals. */
export const metrics = {
  /** AUROC, trapezoid AUPRC, Min(Se, P+). */
  binary: binaryMetrics,
  /** Linear kappa, micro and macro AUROC. */
  multiclass: multiclassMetrics,
  /** Seeded percentile bootstrap over groups of rows. */
  bootstrap: bootstrapIntervals,
} as const;
