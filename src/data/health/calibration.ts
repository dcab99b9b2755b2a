import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkFields, checkList, checkType, wrongType, zeroOrOne } from '../check';

/** How raw probabilities become calibrated ones. */
export type CalibrationMethod = 'temperature' | 'platt' | 'isotonic';

/** A fitted calibration as plain data, as bundles store it. */
export type CalibrationJSON =
  | { method: 'temperature'; temperature: number }
  | { method: 'platt'; slope: number; intercept: number }
  | { method: 'isotonic'; scores: number[]; probabilities: number[] };

const tiny = 1e-15;

/** The flattest temperature that is fitted. */
export const mostTemperature = 1e6;

function logit(p: number): number {
  const clipped = Math.min(1 - tiny, Math.max(tiny, p));
  return Math.log(clipped) - Math.log1p(-clipped);
}

function sigmoid(z: number): number {
  if (z >= 0) return 1 / (1 + Math.exp(-z));
  const e = Math.exp(z);
  return e / (1 + e);
}

function wrong(message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_INPUT', `calibration: ${message}`);
}

/** Checks labels against probabilities, and gives the labels as 0 and 1. */
function checkRows(where: string, labels: ArrayLike<number | boolean>, probabilities: ArrayLike<number>): Float64Array {
  checkList(where, 'labels', labels);
  checkList(where, 'probabilities', probabilities);
  if (labels.length !== probabilities.length || labels.length === 0) {
    throw wrong(
      `expected one probability per label, got ${labels.length} labels and ${probabilities.length} probabilities`,
    );
  }
  return Float64Array.from({ length: labels.length }, (_, i) => {
    const label = zeroOrOne(labels[i]);
    const p = probabilities[i]!;
    if (Number.isNaN(label)) throw wrong(`labels[${i}]: expected 0 or 1, got ${describe(labels[i])}`);
    if (!(typeof p === 'number' && p >= 0 && p <= 1)) {
      throw wrong(`probabilities[${i}]: expected a number from 0 to 1, got ${describe(p)}`);
    }
    return label;
  });
}

/**
 * Newton's method on the log loss of sigmoid(slope·z + intercept), with step halving; a tiny ridge keeps separable data finite.
 * With `withIntercept` false the intercept stays 0 (temperature scaling).
 */
function fitLogistic(z: Float64Array, y: Float64Array, withIntercept: boolean): [slope: number, intercept: number] {
  const ridge = 1e-9;
  const loss = (a: number, b: number): number => {
    let sum = 0.5 * ridge * (a * a + b * b);
    for (let i = 0; i < z.length; i++) {
      const s = a * z[i]! + b;
      sum += (Math.max(s, 0) - s * y[i]! + Math.log1p(Math.exp(-Math.abs(s)))) / z.length;
    }
    return sum;
  };
  let a = 1;
  let b = 0;
  let current = loss(a, b);
  for (let step = 0; step < 100; step++) {
    let ga = ridge * a;
    let gb = ridge * b;
    let haa = ridge;
    let hab = 0;
    let hbb = ridge;
    for (let i = 0; i < z.length; i++) {
      const p = sigmoid(a * z[i]! + b);
      const residual = (p - y[i]!) / z.length;
      const w = (p * (1 - p)) / z.length;
      ga += residual * z[i]!;
      gb += residual;
      haa += w * z[i]! * z[i]!;
      hab += w * z[i]!;
      hbb += w;
    }
    let da: number;
    let db = 0;
    if (withIntercept) {
      const det = haa * hbb - hab * hab;
      if (!(det > 0)) break;
      da = (hbb * ga - hab * gb) / det;
      db = (haa * gb - hab * ga) / det;
    } else {
      da = ga / haa;
    }
    let scale = 1;
    let next = loss(a - da, b - db);
    while (!(next <= current) && scale > 1e-10) {
      scale /= 2;
      next = loss(a - scale * da, b - scale * db);
    }
    if (!(next <= current)) break;
    a -= scale * da;
    b -= scale * db;
    const gain = current - next;
    current = next;
    if (gain <= 1e-16 * Math.abs(current) || Math.abs(da) + Math.abs(db) < 1e-12 * (1 + Math.abs(a) + Math.abs(b)))
      break;
  }
  return [a, b];
}

/** Pool-adjacent-violators on probabilities sorted ascending, ties pooled first; one knot at each end of a block. */
function fitIsotonic(p: ArrayLike<number>, y: Float64Array): { scores: number[]; probabilities: number[] } {
  const order = Uint32Array.from({ length: y.length }, (_, i) => i).sort((i, j) => p[i]! - p[j]!);
  const blocks: { low: number; high: number; sum: number; weight: number }[] = [];
  for (const i of order) {
    const score = p[i]!;
    const last = blocks.at(-1);
    if (last && last.high === score && last.low === score) {
      last.sum += y[i]!;
      last.weight++;
    } else {
      blocks.push({ low: score, high: score, sum: y[i]!, weight: 1 });
    }
  }
  const pooled: typeof blocks = [];
  for (const block of blocks) {
    pooled.push({ ...block });
    while (pooled.length > 1) {
      const b = pooled.at(-1)!;
      const a = pooled.at(-2)!;
      if (a.sum * b.weight < b.sum * a.weight) break;
      pooled.pop();
      a.high = b.high;
      a.sum += b.sum;
      a.weight += b.weight;
    }
  }
  const scores: number[] = [];
  const probabilities: number[] = [];
  for (const { low, high, sum, weight } of pooled) {
    scores.push(low);
    probabilities.push(sum / weight);
    if (high > low) {
      scores.push(high);
      probabilities.push(sum / weight);
    }
  }
  return { scores, probabilities };
}

/** Whether a value is what {@link Calibration.toJSON} gives. */
function fits(value: unknown): value is CalibrationJSON {
  const json = value as CalibrationJSON | null;
  if (typeof json !== 'object' || json === null) return false;
  const finite = (x: unknown): x is number => typeof x === 'number' && Number.isFinite(x);
  const ascending = (list: unknown): boolean =>
    Array.isArray(list) && list.length > 0 && list.every((x, i) => finite(x) && (i === 0 || x >= list[i - 1]));
  if (json.method === 'temperature') return finite(json.temperature) && json.temperature > 0;
  if (json.method === 'platt') return finite(json.slope) && finite(json.intercept);
  return (
    json.method === 'isotonic' &&
    ascending(json.scores) &&
    ascending(json.probabilities) &&
    json.scores.length === json.probabilities.length
  );
}

/**
 * Maps raw probabilities of a binary outcome to calibrated ones.
 *
 * `temperature`: sigmoid(logit(p)/T), keeps the ranking and 1/2. `platt`: sigmoid(slope·logit(p) + intercept). `isotonic`: the best
 * non-decreasing step function, interpolated linearly between its knots and constant outside; needs hundreds of rows.
 */
export class Calibration {
  private constructor(private readonly json: CalibrationJSON) {
    if (!fits(json)) throw wrong(`expected the JSON of a calibration, got ${describe(json)}`);
  }

  /**
   * Fits on rows that the model was not trained on.
   *
   * @param labels 0 or 1.
   * @param probabilities raw probabilities, 0…1.
   * @throws HPformerError `ERR_HPFORMER_INPUT` for malformed rows or a single class.
   */
  static fit(
    method: CalibrationMethod,
    labels: ArrayLike<number | boolean>,
    probabilities: ArrayLike<number>,
  ): Calibration {
    const y = checkRows('calibration', labels, probabilities);
    const positives = y.reduce((sum, label) => sum + label, 0);
    if (positives === 0 || positives === y.length) throw wrong('expected labels of both classes to fit on');
    if (method === 'isotonic') return new Calibration({ method, ...fitIsotonic(probabilities, y) });
    const z = Float64Array.from(probabilities, logit);
    if (method === 'temperature') {
      const [slope] = fitLogistic(z, y, false);
      // A ranking that is worse than chance has no positive temperature; the flattest useful one is kept.
      return new Calibration({ method, temperature: Math.min(1 / Math.max(slope, 0), mostTemperature) });
    }
    if (method === 'platt') {
      const [slope, intercept] = fitLogistic(z, y, true);
      return new Calibration({ method, slope, intercept });
    }
    throw wrong(`method: expected temperature, platt or isotonic, got ${describe(method)}`);
  }

  /** Reads what {@link Calibration.toJSON} wrote. @throws HPformerError `ERR_HPFORMER_INPUT`. */
  static fromJSON(value: unknown): Calibration {
    if (!fits(value)) throw wrong(`expected the JSON of a calibration, got ${describe(value)}`);
    return new Calibration(structuredClone(value));
  }

  /** How it was fitted. */
  get method(): CalibrationMethod {
    return this.json.method;
  }

  /** Plain data. */
  toJSON(): CalibrationJSON {
    return structuredClone(this.json);
  }

  /** The calibrated probability of one raw probability. NaN stays NaN. */
  probability(raw: number): number {
    const { json } = this;
    if (typeof raw !== 'number') throw wrongType('calibration: probability', 'a number', raw);
    if (Number.isNaN(raw)) return raw;
    if (json.method === 'temperature') return sigmoid(logit(raw) / json.temperature);
    if (json.method === 'platt') return sigmoid(json.slope * logit(raw) + json.intercept);
    const { scores, probabilities } = json;
    if (raw <= scores[0]!) return probabilities[0]!;
    const last = scores.length - 1;
    if (raw >= scores[last]!) return probabilities[last]!;
    let low = 0;
    let high = last;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (scores[middle]! <= raw) low = middle;
      else high = middle;
    }
    const share = (raw - scores[low]!) / (scores[high]! - scores[low]!);
    return probabilities[low]! + share * (probabilities[high]! - probabilities[low]!);
  }

  /** Calibrated probabilities, a new array. */
  apply(probabilities: ArrayLike<number>): Float64Array {
    checkList('calibration', 'probabilities', probabilities);
    return Float64Array.from(probabilities, (p) => this.probability(p));
  }
}

/**
 * Rows of probabilities with the calibration of each label applied; null leaves a label as it is. Classes of which one is true
 * (`exclusive`) are calibrated one against the rest, so each row is divided by its sum then. A row whose sum is 0 stays raw.
 *
 * @param raw `[rows, calibration.length]`, row by row.
 */
export function calibrateRows(
  raw: ArrayLike<number>,
  calibration: readonly (Calibration | null)[],
  exclusive: boolean,
): ArrayLike<number> {
  if (calibration.every((one) => one === null)) return raw;
  const labels = calibration.length;
  const out = Float64Array.from({ length: raw.length }, (_, i) => {
    const one = calibration[i % labels];
    return one ? one.probability(raw[i]!) : raw[i]!;
  });
  if (!exclusive) return out;
  for (let row = 0; row < out.length; row += labels) {
    let sum = 0;
    for (let c = row; c < row + labels; c++) sum += out[c]!;
    for (let c = row; c < row + labels; c++) out[c] = sum === 0 ? raw[c]! : out[c]! / sum;
  }
  return out;
}

/** Checks a calibration (or null) for each label, or none at all. @throws HPformerError `ERR_HPFORMER_TYPE`. */
export function checkCalibrations(where: string, value: unknown): void {
  if (value === null) return;
  checkType(`${where}: calibration`, value, 'array?');
  for (const [i, one] of ((value ?? []) as unknown[]).entries()) {
    if (one !== null && !(one instanceof Calibration)) {
      throw wrongType(`${where}: calibration[${i}]`, 'a Calibration or null', one);
    }
  }
}

/** One bin of a reliability table. */
export interface ReliabilityBin {
  /** Predicted probabilities from `low` to `high`. */
  low: number;
  high: number;
  count: number;
  /** Mean predicted probability; NaN in an empty bin. */
  predicted: number;
  /** Share of positives; NaN in an empty bin. */
  observed: number;
}

/** How well probabilities mean what they say. */
export interface Reliability {
  /** Mean squared error of the probabilities. */
  brier: number;
  /** Mean |observed − predicted| over the bins, weighted by their counts. */
  expectedCalibrationError: number;
  bins: ReliabilityBin[];
}

/**
 * Brier score, expected calibration error and the table behind a reliability diagram.
 *
 * @param labels 0 or 1.
 * @param probabilities 0…1.
 * @param options `bins` (default 10) and `strategy`: `width` (default), equal parts of 0…1, or `count`, equal numbers of rows (ties stay
 * together).
 */
export function reliability(
  labels: ArrayLike<number | boolean>,
  probabilities: ArrayLike<number>,
  options: { bins?: number | undefined; strategy?: 'width' | 'count' | undefined } = {},
): Reliability {
  checkFields('reliability: options', options, {});
  const { bins = 10, strategy = 'width' } = options;
  if (!Number.isInteger(bins) || bins < 1 || bins > 10000) {
    throw new HPformerError('ERR_HPFORMER_RANGE', `reliability: bins: expected 1…10000, got ${describe(bins)}`);
  }
  if (strategy !== 'width' && strategy !== 'count') {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `reliability: strategy: expected width or count, got ${describe(strategy)}`,
    );
  }
  const y = checkRows('reliability', labels, probabilities);
  const n = y.length;
  const brier = y.reduce((sum, label, i) => sum + (probabilities[i]! - label) ** 2, 0);
  const rows = Array.from({ length: n }, (_, i) => i);
  const groups: number[][] = Array.from({ length: bins }, () => []);
  if (strategy === 'width') {
    for (const i of rows) groups[Math.min(bins - 1, Math.floor(probabilities[i]! * bins))]!.push(i);
  } else {
    rows.sort((a, b) => probabilities[a]! - probabilities[b]!);
    let previous = -1;
    rows.forEach((i, rank) => {
      const same = rank > 0 && probabilities[i] === probabilities[rows[rank - 1]!];
      const bin = same ? previous : Math.floor((rank * bins) / n);
      groups[bin]!.push(i);
      previous = bin;
    });
  }
  let error = 0;
  const table = groups.map((group, b): ReliabilityBin => {
    let predicted = 0;
    let observed = 0;
    for (const i of group) {
      predicted += probabilities[i]!;
      observed += y[i]!;
    }
    error += Math.abs(observed - predicted) / n;
    const count = group.length;
    return {
      low: strategy === 'width' ? b / bins : count === 0 ? Number.NaN : probabilities[group[0]!]!,
      high: strategy === 'width' ? (b + 1) / bins : count === 0 ? Number.NaN : probabilities[group[count - 1]!]!,
      count,
      predicted: predicted / count,
      observed: observed / count,
    };
  });
  return { brier: brier / n, expectedCalibrationError: error, bins: table };
}
