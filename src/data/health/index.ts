/**
 * `hpformer/health`: the published health-benchmark pipeline (raw events → episodes → arrays → labels), its metrics and losses,
 * calibration, bundles, other row formats, explanations and prediction records. See docs/health.md.
 */
export type { Bundle, BundleContent } from '../bundle';
export type { Figure, LabelEvaluation, Predictions } from '../evaluation';
export type {
  BinaryMetrics,
  BinaryRanking,
  BootstrapOptions,
  ClassScores,
  Interval,
  MulticlassMetrics,
  ThresholdPoint,
} from '../metrics';
export {
  type BinnedEpisode,
  type BinOptions,
  type BinSettings,
  DropReport,
  type EpisodeInput,
  EpisodePreparer,
  episodeFromBytes,
  episodeFromText,
  type PreparedEpisode,
  type PrepareOptions,
  ReadingList,
  type TimedReading,
} from './arrays';
export {
  type HealthBundleContent,
  type HealthFeatures,
  type HealthPreprocessing,
  healthFeatures,
  preprocessingHash,
  readHealthPreprocessing,
  writeHealthBundle,
} from './bundle';
export {
  Calibration,
  type CalibrationJSON,
  type CalibrationMethod,
  type Reliability,
  type ReliabilityBin,
  reliability,
} from './calibration';
export type { CrewOptions } from './crew';
export {
  type DiscretizedEpisode,
  type DiscretizeOptions,
  discretize,
  type Fill,
  type ReadingSource,
} from './discretize';
export { type EpisodeReadOptions, inputFiles, openEpisodes } from './episodes';
export {
  attentionNotice,
  type ExplainableModel,
  type ExplainOptions,
  type Explanation,
  explainEpisode,
  explanationCsv,
  type Perturbation,
  type Span,
} from './explain';
export { type ExtractedSubject, extractSubject, type SubjectTables } from './extract';
export { explanationSvg } from './heatmap';
export {
  type Compat,
  decompensationLabels,
  type LabelOptions,
  type LabelSample,
  lengthOfStayClass,
  lengthOfStayLabels,
  type StepLabels,
} from './labels';
export { type ListedStay, readListFile } from './listfile';
export { decompensationLoss, inHospitalMortalityLoss, lengthOfStayLoss, type Shaped } from './losses';
export { metrics } from './metrics';
export {
  Normalizer,
  NormalizerFitter,
  type NormalizerJSON,
  type NormalizerKind,
  type NormalizerOptions,
  type NormalizerRows,
} from './normalizer';
export {
  fitNormalizer,
  type PrepareArraysOptions,
  type PreparedManifest,
  prepareArrays,
} from './prepare';
export { readPrepared } from './prepared';
export { type PredictionRecord, predictionRecord, type RecordContext, RecordWriter } from './record';
export {
  type CalibrationStudy,
  evaluationReport,
  knownRows,
  type LabelRows,
  type ReportContent,
  studyCalibration,
} from './report';
export { loincVariables } from './rows/fhir';
export { convertUnit, knownUnits } from './rows/units';
export { columnNames, episodeHeader, type HealthVariable, healthSchemaVersion, healthVariables } from './schema';
export { type SyntheticEpisode, synthesizeEpisode } from './synthetic';
export { type HealthTask, type HealthTaskName, healthTasks } from './tasks';
