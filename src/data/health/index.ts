/**
 * `hpformer/health`: the published health-benchmark pipeline (raw events → episodes → arrays → labels), its metrics and losses,
 * calibration, bundles, other row formats, explanations and prediction records. See docs/health.md.
 */
export {
  Calibration,
  type CalibrationJSON,
  type CalibrationMethod,
  type Reliability,
  type ReliabilityBin,
  reliability,
} from './calibration';
export { type DiscretizedEpisode, type DiscretizeOptions, discretize, type Fill } from './discretize';
export { type ExtractedSubject, extractSubject, type SubjectTables } from './extract';
export {
  type Compat,
  decompensationLabels,
  type LabelOptions,
  type LabelSample,
  lengthOfStayClass,
  lengthOfStayLabels,
  type StepLabels,
} from './labels';
export { decompensationLoss, inHospitalMortalityLoss, lengthOfStayLoss, type Shaped } from './losses';
export { metrics } from './metrics';
export {
  Normalizer,
  NormalizerFitter,
  type NormalizerJSON,
  type NormalizerKind,
  type NormalizerOptions,
} from './normalizer';
export { columnNames, episodeHeader, type HealthVariable, healthSchemaVersion, healthVariables } from './schema';
