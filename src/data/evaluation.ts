import { HPformerError } from '../errors';
import type { Feeds, Results } from '../model/types';
import { BinaryRanking, bootstrapIntervals } from './metrics';
import type { LabelledBatch, ScoreBatch } from './recipes';

/** What scoring needs of a model. */
export interface Scorer {
  stream(
    source: AsyncIterable<Feeds>,
    options: { outputs: readonly 'probabilities'[] },
  ): AsyncIterable<Results<'probabilities'>>;
}

/** A scored batch: `probabilities` is `[ids.length, labels]`, row-major; `raw` the same before calibration. */
export type Scored<Batch extends ScoreBatch> = Batch & { probabilities: ArrayLike<number>; raw: ArrayLike<number> };

/** Runs batches through a model, in order, reading ahead no further than the model's own stream does. */
export async function* scoreBatches<Batch extends ScoreBatch>(
  model: Scorer,
  batches: AsyncIterable<Batch>,
): AsyncGenerator<Scored<Batch>> {
  const waiting: Batch[] = [];
  async function* feeds(): AsyncGenerator<Feeds> {
    for await (const batch of batches) {
      waiting.push(batch);
      yield batch.feeds;
    }
  }
  for await (const { probabilities } of model.stream(feeds(), { outputs: ['probabilities'] })) {
    const batch = waiting.shift()!;
    batch.release?.();
    const raw = batch.pick ? batch.pick(probabilities.data) : probabilities.data;
    yield { ...batch, raw, probabilities: batch.calibrate ? batch.calibrate(raw) : raw };
  }
}

/** Labels and scores of everything that was evaluated, by row. */
export interface Predictions {
  ids: (string | number)[];
  groups: (string | number)[];
  /** By label, then row. */
  labels: (0 | 1 | undefined)[][];
  scores: Float64Array[];
}

/** Scores labelled batches and keeps what metrics need; `raw`: without the bundle's calibration. */
export async function predictLabelled(
  model: Scorer,
  batches: AsyncIterable<LabelledBatch>,
  labelCount: number,
  raw = false,
): Promise<Predictions> {
  const ids: (string | number)[] = [];
  const groups: (string | number)[] = [];
  const labels = Array.from({ length: labelCount }, () => [] as (0 | 1 | undefined)[]);
  const scores = Array.from({ length: labelCount }, () => [] as number[]);
  for await (const batch of scoreBatches(model, batches)) {
    for (let i = 0; i < batch.ids.length; i++) {
      ids.push(batch.ids[i]!);
      groups.push(batch.groups[i]!);
      for (let k = 0; k < labelCount; k++) {
        labels[k]!.push(batch.labels[i]![k]);
        scores[k]!.push((raw ? batch.raw : batch.probabilities)[i * labelCount + k]!);
      }
    }
  }
  return { ids, groups, labels, scores: scores.map((s) => Float64Array.from(s)) };
}

/** A figure with its bootstrap interval, where one was computed. */
export interface Figure {
  value: number;
  low?: number;
  high?: number;
}

/** Evaluation of one label over the rows where it is known. Figures are NaN when only one class occurs. */
export interface LabelEvaluation {
  name: string;
  rows: number;
  events: number;
  auroc: Figure;
  auprc: Figure;
  minSensitivityPrecision: Figure;
  logLoss: number;
  brier: number;
  meanProbability: number;
}

export interface EvaluationOptions {
  /** Bootstrap samples; 0: no intervals. */
  samples: number;
  seed: number;
}

/**
 * Ranking and probability metrics of each label; rows whose label is unknown are left out of that label's figures.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` when there are no rows at all.
 */
export function evaluateLabels(
  predictions: Predictions,
  names: readonly string[],
  options: EvaluationOptions,
): LabelEvaluation[] {
  if (predictions.ids.length === 0) {
    throw new HPformerError('ERR_HPFORMER_INPUT', 'evaluate: expected at least one row with a known outcome, got none');
  }
  for (const scores of predictions.scores) {
    const row = scores.findIndex((p) => !Number.isFinite(p));
    if (row < 0) continue;
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `evaluate: ${predictions.ids[row]}: expected a probability, got ${scores[row]} (a reading was NaN or infinite)`,
    );
  }
  return names.map((name, k) => evaluateOne(name, predictions, k, options));
}

function evaluateOne(name: string, predictions: Predictions, k: number, options: EvaluationOptions): LabelEvaluation {
  const all = predictions.labels[k]!;
  const known = all.flatMap((label, i) => (label === undefined ? [] : [i]));
  const labels = known.map((i) => all[i]!);
  const scores = known.map((i) => predictions.scores[k]![i]!);
  const events = labels.reduce((sum: number, label) => sum + label, 0);
  const undefinedFigure = { value: Number.NaN };
  const result: LabelEvaluation = {
    name,
    rows: known.length,
    events,
    auroc: undefinedFigure,
    auprc: undefinedFigure,
    minSensitivityPrecision: undefinedFigure,
    logLoss: mean(labels.map((y, i) => -Math.log(y === 1 ? scores[i]! : 1 - scores[i]!))),
    brier: mean(labels.map((y, i) => (scores[i]! - y) ** 2)),
    meanProbability: mean(scores),
  };
  if (events === 0 || events === known.length) return result;
  const ranking = new BinaryRanking(labels, scores);
  const plain = ranking.metrics();
  const intervals =
    options.samples > 0
      ? bootstrapIntervals(
          known.map((i) => predictions.groups[i]!),
          (weights) => ({ ...ranking.metrics(weights) }),
          options,
        )
      : undefined;
  for (const metric of ['auroc', 'auprc', 'minSensitivityPrecision'] as const) {
    const interval = intervals?.[metric];
    result[metric] = interval
      ? { value: plain[metric], low: interval.low, high: interval.high }
      : { value: plain[metric] };
  }
  return result;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}
