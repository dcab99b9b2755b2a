export { type BinaryMetrics, BinaryRanking, binaryMetrics, type ThresholdPoint } from './binary';
export { type BootstrapOptions, bootstrapIntervals, type Interval, quantile } from './bootstrap';
export { type ClassScores, type MulticlassMetrics, multiclassMetrics } from './multiclass';
export { SeededRandom } from './random';
