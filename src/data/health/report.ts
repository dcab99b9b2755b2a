import { HPformerError } from '../../errors';
import { checkEach, checkFields, checkType, wrongType } from '../check';
import type { LabelEvaluation, Predictions } from '../evaluation';
import { BinaryRanking } from '../metrics';
import { Calibration, type CalibrationMethod, calibrateRows, type Reliability, reliability } from './calibration';
import { escapeHtml, htmlPage, htmlTable, type Line, lineChart, thin } from './charts';

/** One label's rows whose outcome is known. */
export interface LabelRows {
  name: string;
  labels: (0 | 1)[];
  scores: number[];
}

/** Reliability of one label before and after calibration on other rows. */
export interface CalibrationStudy {
  name: string;
  method: CalibrationMethod;
  calibration: Calibration;
  /** Rows and events that the calibration was fitted on. */
  fittedOn: { rows: number; events: number };
  before: Reliability;
  after: Reliability;
}

/**
 * The known rows of every label.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for arguments of other types, `ERR_HPFORMER_SHAPE` when names, labels and scores differ in
 * number.
 */
export function knownRows(predictions: Predictions, names: readonly string[]): LabelRows[] {
  checkFields('knownRows: predictions', predictions, { labels: 'array', scores: 'array' });
  checkType('knownRows: names', names, 'strings');
  for (const k of names.keys()) {
    const { [k]: labels } = predictions.labels;
    const { [k]: scores } = predictions.scores;
    checkType(`knownRows: labels[${k}]`, labels, 'array');
    checkType(`knownRows: scores[${k}]`, scores, 'list');
    if (labels!.length !== scores!.length) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `knownRows: expected one score a label, got ${labels!.length} labels and ${scores!.length} scores`,
      );
    }
  }
  return names.map((name, k) => {
    const labels: (0 | 1)[] = [];
    const scores: number[] = [];
    predictions.labels[k]!.forEach((label, i) => {
      if (label === undefined) return;
      labels.push(label);
      scores.push(predictions.scores[k]![i]!);
    });
    return { name, labels, scores };
  });
}

/**
 * Fits a calibration for each label on one set of rows (validation) and judges it on another (test). A label with one class only in
 * the fitting rows is left out: its probabilities stay raw.
 *
 * @param exclusive one of the labels is true (softmax): calibrated probabilities of a row are divided by their sum.
 * @throws HPformerError `ERR_HPFORMER_TYPE` for arguments of other types, `ERR_HPFORMER_SHAPE` for fewer fitting labels than judged
 * ones or exclusive labels with other rows than the first, `ERR_HPFORMER_INPUT` for malformed rows or another method.
 */
export function studyCalibration(
  fitting: readonly LabelRows[],
  judged: readonly LabelRows[],
  method: CalibrationMethod,
  exclusive = false,
): (CalibrationStudy | null)[] {
  checkLabelRows('studyCalibration: fitting', fitting);
  checkLabelRows('studyCalibration: judged', judged);
  if (fitting.length < judged.length) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `studyCalibration: expected rows to fit on for ${judged.length} labels, got ${fitting.length}`,
    );
  }
  const found = judged.map((rows, k) => {
    const { labels, scores } = fitting[k]!;
    const events = labels.reduce((sum: number, y) => sum + y, 0);
    if (events === 0 || events === labels.length || rows.labels.length === 0) return null;
    return { calibration: Calibration.fit(method, labels, scores), rows: labels.length, events };
  });
  const columns = applied(
    judged,
    found.map((one) => one?.calibration ?? null),
    exclusive,
  );
  return judged.map(({ name, labels, scores }, k) => {
    const one = found[k];
    if (!one) return null;
    const { calibration, ...fittedOn } = one;
    const before = reliability(labels, scores);
    return { name, method, calibration, fittedOn, before, after: reliability(labels, columns[k]!) };
  });
}

/** Calibrated scores by label. */
function applied(
  judged: readonly LabelRows[],
  all: readonly (Calibration | null)[],
  exclusive: boolean,
): Float64Array[] {
  if (!exclusive) return judged.map(({ scores }, k) => Float64Array.from(all[k]?.apply(scores) ?? scores));
  const rows = judged[0]?.scores.length ?? 0;
  const other = judged.find(({ scores }) => scores.length !== rows);
  if (other) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `studyCalibration: expected ${rows} rows of each label, since one of them is true, got ${other.scores.length} of "${other.name}"`,
    );
  }
  const raw = Float64Array.from({ length: rows * judged.length }, (_, i) => {
    return judged[i % judged.length]!.scores[Math.floor(i / judged.length)]!;
  });
  const fitted = calibrateRows(raw, all, true);
  return judged.map((_, k) => Float64Array.from({ length: rows }, (_, i) => fitted[i * judged.length + k]!));
}

function checkLabelRows(where: string, rows: readonly LabelRows[]): void {
  checkEach(where, rows, { name: 'string', labels: 'numberArray', scores: 'list' });
}

function checkPairs(where: string, pairs: readonly (readonly [string, string])[]): void {
  checkType(where, pairs, 'array');
  for (const [i, pair] of pairs.entries()) {
    checkType(`${where}[${i}]`, pair, 'strings');
    if (pair.length !== 2) throw wrongType(`${where}[${i}]`, 'a name and a value', pair);
  }
}

/** Checks what the report is made of. @throws HPformerError `ERR_HPFORMER_TYPE`. */
function checkContent(where: string, content: ReportContent): void {
  checkFields(where, content, {
    title: 'string',
    facts: 'array',
    evaluations: 'array',
    rows: 'array',
    studies: 'array?',
  });
  const { facts, evaluations, rows, studies = [], further = [] } = content;
  checkPairs(`${where}: facts`, facts);
  checkPairs(`${where}: further`, further);
  checkLabelRows(`${where}: rows`, rows);
  const figures = { auroc: 'object', auprc: 'object', minSensitivityPrecision: 'object' } as const;
  const numbers = { rows: 'number', events: 'number', logLoss: 'number', brier: 'number' } as const;
  checkEach(`${where}: evaluations`, evaluations, { name: 'string', ...numbers, ...figures });
  for (const [i, { auroc, auprc, minSensitivityPrecision }] of evaluations.entries()) {
    const all = [auroc, auprc, minSensitivityPrecision];
    checkEach(`${where}: evaluations[${i}]: figures`, all, { value: 'number', low: 'number?', high: 'number?' });
  }
  for (const [i, study] of studies.entries()) {
    if (!study) continue;
    const at = `${where}: studies[${i}]`;
    checkFields(at, study, { method: 'string', fittedOn: 'object', after: 'object' });
    checkFields(`${at}: fittedOn`, study.fittedOn, { rows: 'number', events: 'number' });
    checkFields(`${at}: after`, study.after, { brier: 'number', expectedCalibrationError: 'number' });
    const bin = { low: 'number', high: 'number', count: 'number', predicted: 'number', observed: 'number' } as const;
    checkEach(`${at}: bins`, study.after.bins, bin);
  }
}

/** What the report says. */
export interface ReportContent {
  title: string;
  /** Model, device, data, part, hash: name and value. */
  facts: readonly (readonly [string, string])[];
  evaluations: readonly LabelEvaluation[];
  rows: readonly LabelRows[];
  studies?: readonly (CalibrationStudy | null)[] | undefined;
  /** Further figures, such as kappa: name and value. */
  further?: readonly (readonly [string, string])[] | undefined;
}

const three = (v: number): string => (Number.isNaN(v) ? '–' : v.toFixed(3));

function reliabilityLine(name: string, { bins }: Reliability): Line {
  const used = bins.filter((b) => b.count > 0);
  const most = Math.max(...used.map((b) => b.count));
  return {
    name,
    points: used.map((b) => [b.predicted, b.observed] as const),
    weights: used.map((b) => b.count / most),
  };
}

function curves({ labels, scores }: LabelRows): { roc: [number, number][]; pr: [number, number][] } | undefined {
  const positives = labels.reduce((sum: number, y) => sum + y, 0);
  const negatives = labels.length - positives;
  if (positives === 0 || negatives === 0) return undefined;
  const points = new BinaryRanking(labels, scores).curve();
  return {
    roc: [[0, 0], ...points.map((p): [number, number] => [p.falsePositives / negatives, p.truePositives / positives])],
    pr: [
      [0, 1],
      ...points.map((p): [number, number] => [
        p.truePositives / positives,
        p.truePositives / (p.truePositives + p.falsePositives),
      ]),
    ],
  };
}

/** Platt is a name. */
const methodName = (method: CalibrationMethod): string => (method === 'platt' ? 'Platt' : method);

/**
 * The evaluation as one HTML page: figures, reliability before and after calibration, ROC and precision-recall curves.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for content of other types, `ERR_HPFORMER_INPUT` for malformed rows.
 */
export function evaluationReport(content: ReportContent): string {
  checkContent('evaluationReport', content);
  const { evaluations, rows, studies = [] } = content;
  const facts = htmlTable(
    ['', ''],
    content.facts.map(([name, value]) => [name, value]),
  );
  const interval = (f: { value: number; low?: number; high?: number }): string =>
    f.low === undefined || f.high === undefined
      ? three(f.value)
      : `${three(f.value)} [${three(f.low)}, ${three(f.high)}]`;
  const figures = htmlTable(
    ['label', 'rows', 'events', 'AUROC', 'AUPRC', 'Min(Se, P+)', 'log loss', 'Brier'],
    evaluations.map((e) => [
      e.name,
      String(e.rows),
      String(e.events),
      interval(e.auroc),
      interval(e.auprc),
      interval(e.minSensitivityPrecision),
      three(e.logLoss),
      three(e.brier),
    ]),
  );
  const sections = rows.map((label, k) => {
    const study = studies[k];
    if (label.labels.length === 0) return '';
    const plain = reliability(label.labels, label.scores);
    const lines = [reliabilityLine('as the model says', plain)];
    if (study) lines.push(reliabilityLine(`calibrated (${methodName(study.method)})`, study.after));
    const drawn = curves(label);
    const parameters = study
      ? `<p class="soft">${methodName(study.method)} fitted on ${study.fittedOn.rows} other rows with ${study.fittedOn.events} events.</p>`
      : '';
    const charts = [
      lineChart('Reliability', ['predicted probability', 'observed share'], lines, true),
      ...(drawn
        ? [
            lineChart('ROC', ['1 − specificity', 'sensitivity'], [{ name: label.name, points: thin(drawn.roc) }], true),
            lineChart(
              'Precision and recall',
              ['recall', 'precision'],
              [{ name: label.name, points: thin(drawn.pr) }],
              false,
            ),
          ]
        : []),
    ];
    const table = htmlTable(
      ['predicted from', 'to', 'rows', 'mean predicted', 'observed'],
      (study?.after ?? plain).bins
        .filter((b) => b.count > 0)
        .map((b) => [b.low.toFixed(2), b.high.toFixed(2), String(b.count), three(b.predicted), three(b.observed)]),
    );
    const summary = htmlTable(
      ['', 'Brier score', 'expected calibration error'],
      [
        ['as the model says', plain.brier.toFixed(4), plain.expectedCalibrationError.toFixed(4)],
        ...(study
          ? [
              [
                `calibrated (${methodName(study.method)})`,
                study.after.brier.toFixed(4),
                study.after.expectedCalibrationError.toFixed(4),
              ],
            ]
          : []),
      ],
    );
    return `<h2>${escapeHtml(label.name)}</h2>${summary}${parameters}<div class="charts">${charts.join('')}</div><h3>Reliability table${study ? ', calibrated' : ''}</h3>${table}`;
  });
  const further = content.further?.length
    ? `<h2>Further figures</h2>${htmlTable(
        ['', ''],
        content.further.map(([a, b]) => [a, b]),
      )}`
    : '';
  return htmlPage(
    content.title,
    `<h1>${escapeHtml(content.title)}</h1>${facts}<h2>Figures</h2><p class="soft">Brackets: 95 % bootstrap intervals. AUPRC is the trapezoid area; Min(Se, P+) the best min(recall, precision).</p>${figures}${further}${sections.join('\n')}` +
      '<p class="soft">For research use. Probabilities are only as good as the data they were fitted on; calibration holds for populations like the one it was fitted on.</p>',
  );
}
