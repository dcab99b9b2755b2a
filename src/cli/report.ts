import path from 'node:path';
import type { LabelEvaluation, Predictions } from '../data/evaluation';
import { type CalibrationMethod, mostTemperature } from '../data/health/calibration';
import { type CalibrationStudy, evaluationReport, knownRows, studyCalibration } from '../data/health/report';
import { multiclassMetrics } from '../data/metrics';
import type { ScoreSource } from '../data/recipes';
import { writeAtomically } from '../files';
import { choiceOption, type Options, textOption, UsageError, type Values } from './command';
import { formatTable } from './table';

/** Parts of a split; `all`: everyone whose outcome is known. */
export const parts = ['train', 'valid', 'test', 'all'] as const;

/** Options of `evaluate` for calibration and the HTML report. */
export const reportOptions: Options = {
  calibrate: { type: 'string', value: 'name', help: 'temperature, platt or isotonic: reliability before and after' },
  'calibrate-on': { type: 'string', value: 'part', help: 'part that the calibration is fitted on (default valid)' },
  'save-calibration': { type: 'string', value: 'file', help: 'the fitted calibrations as JSON, for prepare bundle' },
  report: { type: 'string', value: 'file', help: 'an HTML report: reliability, ROC and precision-recall curves' },
};

/** What the options ask for. */
export interface ReportRequest {
  method: CalibrationMethod | undefined;
  fitPart: string;
  report: string | undefined;
  save: string | undefined;
}

/** Reads {@link reportOptions}. @throws UsageError. */
export function reportRequest(values: Values): ReportRequest {
  const method = choiceOption<CalibrationMethod>(values, 'calibrate', ['temperature', 'platt', 'isotonic']);
  for (const name of ['calibrate-on', 'save-calibration']) {
    if (values[name] !== undefined && method === undefined)
      throw new UsageError(`--${name}: expected --calibrate <name> with it, got none`);
  }
  return {
    method,
    fitPart: choiceOption(values, 'calibrate-on', parts) ?? 'valid',
    report: textOption(values, 'report'),
    save: textOption(values, 'save-calibration'),
  };
}

/**
 * Whether a calibration is judged on rows that it is fitted on: because one part was asked for twice, or because one file is all there is.
 *
 * @throws UsageError for a part of a list file given by name, which is judged whole; HPformerError `ERR_HPFORMER_FILE` for list files
 * that are not there.
 */
export async function checkParts(
  data: ScoreSource,
  inputs: readonly string[],
  part: string,
  asked: boolean,
  { method, fitPart }: ReportRequest,
): Promise<boolean> {
  const list = data.partFiles && inputs.find((input) => path.basename(input).endsWith('listfile.csv'));
  if (list !== undefined && asked && part !== 'all')
    throw new UsageError(`--part: expected a folder of list files with it, got "${list}", which is judged whole`);
  if (method === undefined) return false;
  if (fitPart === part || part === 'all' || fitPart === 'all') return true;
  const [fitted = [], judged = []] = data.partFiles ? [await data.partFiles(fitPart), await data.partFiles(part)] : [];
  return fitted.some((file) => judged.includes(file));
}

/** Kappa, micro and macro AUROC of rows whose labels are one class each; undefined for anything else. */
export function classFigures(
  predictions: Predictions,
): { kappa: number; microAuroc: number; macroAuroc: number } | undefined {
  const { labels, scores, ids } = predictions;
  if (labels.length < 2) return undefined;
  const classes = ids.map((_, i) => {
    let found = -1;
    for (let k = 0; k < labels.length; k++) {
      if (labels[k]![i] === undefined || (labels[k]![i] === 1 && found >= 0)) return -1;
      if (labels[k]![i] === 1) found = k;
    }
    return found;
  });
  if (classes.length === 0 || classes.includes(-1)) return undefined;
  const table = new Float64Array(ids.length * labels.length);
  for (let k = 0; k < labels.length; k++)
    for (let i = 0; i < ids.length; i++) table[i * labels.length + k] = scores[k]![i]!;
  return multiclassMetrics(classes, { data: table, dims: [ids.length, labels.length] });
}

/** Fits and judges calibrations, saves them, and writes the report. */
export async function finishReport(
  request: ReportRequest,
  names: readonly string[],
  judged: Predictions,
  fitting: Predictions | undefined,
  evaluations: readonly LabelEvaluation[],
  facts: readonly (readonly [string, string])[],
  exclusive = false,
): Promise<(CalibrationStudy | null)[]> {
  const rows = knownRows(judged, names);
  const studies =
    request.method && fitting ? studyCalibration(knownRows(fitting, names), rows, request.method, exclusive) : [];
  if (request.save !== undefined) {
    await writeAtomically(
      request.save,
      `${JSON.stringify(
        studies.map((s) => s?.calibration.toJSON() ?? null),
        null,
        1,
      )}\n`,
    );
  }
  if (request.report !== undefined) {
    const figures = classFigures(judged);
    const further: [string, string][] = figures
      ? [
          ['Cohen’s kappa, linear weights', figures.kappa.toFixed(4)],
          ['micro AUROC', figures.microAuroc.toFixed(4)],
          ['macro AUROC', figures.macroAuroc.toFixed(4)],
        ]
      : [];
    const title = `Evaluation of ${facts[0]?.[1] ?? 'a model'}`;
    await writeAtomically(request.report, evaluationReport({ title, facts, evaluations, rows, studies, further }));
  }
  return studies;
}

/** Whether a temperature is the largest there is: what the scores say of the outcome is nothing, or the opposite. */
export function flattest(study: CalibrationStudy | null): boolean {
  const json = study?.calibration.toJSON();
  return json?.method === 'temperature' && json.temperature >= mostTemperature;
}

/** Brier score and calibration error before and after, as a table. */
export function calibrationTable(studies: readonly (CalibrationStudy | null)[]): string {
  return formatTable(
    ['label', 'calibration', 'fitted on', 'Brier before', 'after', 'ECE before', 'after'],
    studies.flatMap((s) =>
      s
        ? [
            [
              s.name,
              s.method,
              `${s.fittedOn.rows} (${s.fittedOn.events} events)`,
              s.before.brier.toFixed(4),
              s.after.brier.toFixed(4),
              s.before.expectedCalibrationError.toFixed(4),
              s.after.expectedCalibrationError.toFixed(4),
            ],
          ]
        : [],
    ),
  );
}
