import { segmentsOf } from '../../config/segments';
import type { HPformerConfig } from '../../config/types';
import { validateConfig } from '../../config/validate';
import { HPformerError } from '../../errors';
import type { Feeds, Results } from '../../model/types';
import { describe } from '../../tensor/shape';
import { Tensor } from '../../tensor/tensor';
import { checkEach, checkFields, checkType } from '../check';
import type { PreparedEpisode } from './arrays';
import { type Calibration, calibrateRows, checkCalibrations } from './calibration';
import { csvField } from './csv';
import { firstColumn, healthVariables, valueColumns, variableCount } from './schema';
import { checkTask, type HealthTask } from './tasks';

/** Said with every explanation. */
export const attentionNotice =
  'Attention weights show what the model mixed, not what caused the outcome; a perturbation shows how this model reacts, not what would happen to the patient.';

/** What explaining needs of a model. */
export interface ExplainableModel {
  readonly config: HPformerConfig;
  /** As `HPformer.run`. */
  run(feeds: Feeds, options: { outputs: readonly string[] }): Promise<Results>;
}

/** A span of hours of the stay, a segment of the model. */
export interface Span {
  /** Hours since the start, first included, last not. */
  from: number;
  to: number;
}

/** Where one prediction looked. */
export interface Explanation {
  id: string;
  notice: string;
  /** Probabilities of the labels, calibrated where a calibration was given. */
  probabilities: number[];
  /** The K segments named by hours. */
  spans: Span[];
  /** Hour that the readout read, as the end of its step. */
  hour: number;
  /** Weight of each span by layer, head, span; the spans of one head sum to 1. */
  attention: number[][][];
  /** Mean over layers and heads, by span. */
  meanAttention: number[];
  /** Weight of each step inside its segment, by step of the model's input. */
  hours: { hour: number; span: number; weight: number }[];
  perturbations: Perturbation[];
}

/** What happens to the probabilities when something is taken away. */
export interface Perturbation {
  kind: 'variable' | 'span';
  /** Variable name, or the span as `0–12 h`. */
  name: string;
  probabilities: number[];
  /** Change by label: perturbed minus original. */
  change: number[];
}

/** Options of {@link explainEpisode}. */
export interface ExplainOptions {
  task: HealthTask;
  /** Hours of one step; default 1. */
  step?: number | undefined;
  /** Which step is explained; default the episode's readout step. */
  at?: number | undefined;
  /** Which perturbations are run: `variables`, `spans`, `all` (default) or `none`. */
  perturb?: 'all' | 'variables' | 'spans' | 'none' | undefined;
  calibration?: readonly (Calibration | null)[] | undefined;
}

/** `0–12 h`. */
export function spanName({ from, to }: Span): string {
  const text = (v: number): string => String(Number(v.toFixed(3)));
  return `${text(from)}–${text(to)} h`;
}

/**
 * Features with one variable unobserved in all steps (its values at the training mean, its mask 0 as fed, i.e. normalised 0 for the
 * values and the lowest value of its mask column), or with a span of steps emptied the same way.
 */
function without(
  episode: PreparedEpisode,
  width: number,
  steps: number,
  columns: readonly number[],
  range: readonly [number, number],
): Float32Array {
  const out = episode.features.slice();
  const masks = width > valueColumns;
  for (const c of columns) {
    // A mask has two values; unread is the lower one. A mask that is always on or off stays as it is.
    let unread = 0;
    if (masks && c >= valueColumns) {
      unread = Number.POSITIVE_INFINITY;
      for (let t = 0; t < episode.bins; t++) unread = Math.min(unread, episode.features[t * width + c]!);
    }
    for (let t = range[0]; t < Math.min(range[1], steps, episode.bins); t++) out[t * width + c] = unread;
  }
  return out;
}

/** Checks what {@link explainEpisode} is given, but for `at`, and gives the model's configuration completed. */
function checkExplain(model: ExplainableModel, episode: PreparedEpisode, options: ExplainOptions): HPformerConfig {
  checkFields('explain: model', model, { config: 'object', run: 'function' });
  const config = validateConfig(model.config);
  checkFields('explain: episode', episode, { id: 'string', features: 'float32', bins: 'number', step: 'number' });
  checkFields('explain: options', options, { task: 'object', step: 'number?' });
  const { task, step = 1, perturb = 'all', calibration } = options;
  checkTask('explain: task', task);
  checkCalibrations('explain', calibration);
  if (!(step > 0 && Number.isFinite(step))) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `explain: step: expected a positive number of hours, got ${describe(step)}`,
    );
  }
  if (!['all', 'variables', 'spans', 'none'].includes(perturb)) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `explain: perturb: expected all, variables, spans or none, got ${describe(perturb)}`,
    );
  }
  return config;
}

/** One output of the model that is explained. */
function outputOf(results: Results, name: 'probabilities' | 'attention' | 'intraAttention'): Results[string] & object {
  checkFields('explain: results of model.run', results, { [name]: 'object' });
  const output = results[name]!;
  checkFields(`explain: ${name}`, output, { data: 'numbers', dims: 'numberArray' });
  return output;
}

/**
 * Explains one prediction by time span: attention over the segments by layer and head, the weight of each step inside its segment, and
 * what changes when a variable or a span is taken away (set to the training mean, its readings unmarked).
 *
 * @throws HPformerError `ERR_HPFORMER_SHAPE` when episode and task do not fit, `ERR_HPFORMER_TYPE` and `ERR_HPFORMER_RANGE` for
 * arguments, what the model throws otherwise.
 */
export async function explainEpisode(
  model: ExplainableModel,
  episode: PreparedEpisode,
  options: ExplainOptions,
): Promise<Explanation> {
  const config = checkExplain(model, episode, options);
  const { task, step = 1, at = episode.step, perturb = 'all', calibration } = options;
  const valid = config.segments.over === 'valid';
  const width = episode.features.length / task.steps;
  if (!Number.isInteger(width)) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `explain: expected features of ${task.steps} steps, got ${episode.features.length} numbers`,
    );
  }
  if (!Number.isInteger(at) || at < 0 || at >= task.steps) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `explain: at: expected a step 0…${task.steps - 1}, got ${describe(at)}`,
    );
  }
  const feedsOf = (batch: readonly Float32Array[]): Feeds => {
    const data = new Float32Array(batch.length * episode.features.length);
    batch.forEach((features, i) => {
      data.set(features, i * features.length);
    });
    return {
      features: new Tensor('float32', data, [batch.length, task.steps, width]),
      ...(task.readout === 'step'
        ? { step: new Tensor('int32', new Int32Array(batch.length).fill(at), [batch.length]) }
        : {}),
      ...(valid
        ? { lengths: new Tensor('int32', new Int32Array(batch.length).fill(episode.bins), [batch.length]) }
        : {}),
    };
  };
  const results = await model.run(feedsOf([episode.features]), {
    outputs: ['probabilities', 'attention', 'intraAttention'],
  });
  const used = valid ? episode.bins : task.steps;
  const { count: segments, length } = segmentsOf(config, used, 'explain');
  const { layers, heads } = config;
  const attention = outputOf(results, 'attention');
  const intraAttention = outputOf(results, 'intraAttention');
  const stored = attention.dims.at(-1)!;
  const row = task.readout === 'step' ? 0 : at;
  const weight = (layer: number, head: number, s: number): number =>
    Number(attention.data[((row * layers + layer) * heads + head) * stored + s]);
  const byHead = Array.from({ length: layers }, (_, l) =>
    Array.from({ length: heads }, (_, h) => Array.from({ length: segments }, (_, s) => weight(l, h, s))),
  );
  const spans = Array.from({ length: segments }, (_, s) => ({
    from: s * length * step,
    to: Math.min((s + 1) * length, used) * step,
  }));
  const probabilitiesOf = (data: ArrayLike<number | bigint>, item: number): number[] => {
    const from = (task.readout === 'step' ? item : item * task.steps + at) * task.labels;
    const raw = Array.from({ length: task.labels }, (_, c) => Number(data[from + c]));
    const fitted = raw.map((_, c) => calibration?.[c] ?? null);
    return Array.from(calibrateRows(raw, fitted, config.head.link === 'softmax'));
  };
  const probabilities = probabilitiesOf(outputOf(results, 'probabilities').data, 0);
  const plans = perturbations(perturb, spans, width, length, episode.bins);
  const changed: Perturbation[] = [];
  if (plans.length > 0) {
    const batch = plans.map(({ columns, range }) => without(episode, width, task.steps, columns, range));
    const run = await model.run(feedsOf(batch), { outputs: ['probabilities'] });
    const { data } = outputOf(run, 'probabilities');
    plans.forEach(({ kind, name }, i) => {
      const now = probabilitiesOf(data, i);
      changed.push({ kind, name, probabilities: now, change: now.map((p, c) => p - probabilities[c]!) });
    });
  }
  return {
    id: episode.id,
    notice: attentionNotice,
    probabilities,
    spans,
    hour: (at + 1) * step,
    attention: byHead,
    meanAttention: spans.map((_, s) => byHead.flat().reduce((sum, head) => sum + head[s]!, 0) / (layers * heads)),
    hours: Array.from({ length: used }, (_, t) => ({
      hour: (t + 1) * step,
      span: Math.floor(t / length),
      weight: Number(intraAttention.data[t]),
    })),
    perturbations: changed,
  };
}

interface Plan {
  kind: 'variable' | 'span';
  name: string;
  columns: number[];
  range: [number, number];
}

function perturbations(
  which: NonNullable<ExplainOptions['perturb']>,
  spans: readonly Span[],
  width: number,
  length: number,
  bins: number,
): Plan[] {
  const plans: Plan[] = [];
  if (which === 'all' || which === 'variables') {
    healthVariables.forEach(({ name }, v) => {
      const columns = Array.from({ length: firstColumn[v + 1]! - firstColumn[v]! }, (_, i) => firstColumn[v]! + i);
      if (width > valueColumns) columns.push(valueColumns + v);
      plans.push({ kind: 'variable', name, columns, range: [0, bins] });
    });
  }
  if (which === 'all' || which === 'spans') {
    const columns = Array.from({ length: Math.min(width, valueColumns + variableCount) }, (_, c) => c);
    spans.forEach((span, s) => {
      if (s * length < bins)
        plans.push({ kind: 'span', name: spanName(span), columns, range: [s * length, (s + 1) * length] });
    });
  }
  return plans;
}

/** Checks an explanation, which may come back from a file. @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_INPUT`. */
export function checkExplanation(where: string, explanation: Explanation): void {
  checkFields(where, explanation, {
    id: 'string',
    probabilities: 'numberArray',
    spans: 'array',
    hour: 'number',
    attention: 'array',
    meanAttention: 'numberArray',
    hours: 'array',
    perturbations: 'array',
  });
  const { probabilities, spans, attention, meanAttention, hours, perturbations: list } = explanation;
  checkEach(`${where}: spans`, spans, { from: 'number', to: 'number' });
  checkEach(`${where}: hours`, hours, { hour: 'number', span: 'number', weight: 'number' });
  checkEach(`${where}: perturbations`, list, { kind: 'string', name: 'string', change: 'numberArray' });
  for (const [l, heads] of attention.entries()) {
    checkType(`${where}: attention[${l}]`, heads, 'array');
    for (const [h, weights] of heads.entries()) checkType(`${where}: attention[${l}][${h}]`, weights, 'numberArray');
  }
  const fits =
    probabilities.length > 0 &&
    [meanAttention, ...attention.flat()].every((weights) => weights.length === spans.length) &&
    hours.every(({ span }) => spans[span] !== undefined) &&
    list.every(({ change }) => change.length === probabilities.length);
  if (!fits) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${where}: expected weights of ${spans.length} spans and changes of 1 or more probabilities, got lists that do not fit each other`,
    );
  }
}

/**
 * The explanation as a long table: `id,part,layer,head,name,from,to,label,value`.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for anything but an explanation, `ERR_HPFORMER_INPUT` for one whose parts do not fit.
 */
export function explanationCsv(explanation: Explanation): string {
  checkExplanation('explanationCsv', explanation);
  const { id, spans, attention, hours, perturbations: list } = explanation;
  const lines = ['id,part,layer,head,name,from,to,label,value'];
  const row = (...cells: (string | number)[]): void => {
    lines.push(cells.map((cell) => csvField(String(cell))).join(','));
  };
  explanation.probabilities.forEach((p, c) => {
    row(id, 'probability', '', '', '', '', '', c, p);
  });
  attention.forEach((heads, l) => {
    heads.forEach((weights, h) => {
      weights.forEach((w, s) => {
        row(id, 'attention', l, h, spanName(spans[s]!), spans[s]!.from, spans[s]!.to, '', w);
      });
    });
  });
  for (const { hour, span, weight } of hours) row(id, 'hour', '', '', spanName(spans[span]!), '', hour, '', weight);
  for (const { kind, name, change } of list) {
    change.forEach((d, c) => {
      row(id, `without ${kind}`, '', '', name, '', '', c, d);
    });
  }
  return `${lines.join('\n')}\n`;
}
