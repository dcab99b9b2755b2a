import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import type { Feeds } from '../model/types';
import { describe } from '../tensor/shape';
import type { Bundle } from './bundle';
import type { DropReport } from './health/arrays';
import { healthSource } from './health/source';
import { nafldSource } from './nafld/source';

/** Rows to score: row i of every feed belongs to `ids[i]`. */
export interface ScoreBatch {
  ids: (string | number)[];
  feeds: Feeds;
  /** Takes the reported rows out of the model's probabilities, where these are others (steps of a stay). */
  pick?: (probabilities: ArrayLike<number>) => ArrayLike<number>;
  /** Calibrated probabilities of the reported rows, where the bundle carries a calibration. */
  calibrate?: (probabilities: ArrayLike<number>) => ArrayLike<number>;
  /** What a prediction record says of one row, given its raw probabilities. */
  record?: (row: number, raw: ArrayLike<number>, device: string, features: boolean) => object;
  /** Called when the model has answered and the feeds' memory may be used again. */
  release?: () => void;
}

/** Rows to score whose outcomes are known (or not: undefined), by label of the model. */
export interface LabelledBatch extends ScoreBatch {
  labels: (0 | 1 | undefined)[][];
  /** What is drawn together when resampling: matched sets, patients. */
  groups: (string | number)[];
}

/** How inputs are read. */
export interface ReadOptions {
  /** Rows per batch. */
  batch: number;
  progress?: ((done: number, total: number) => void) | undefined;
  /** Threads that prepare rows where the recipe has such; 0: none. */
  workers?: number | undefined;
  /** Ends the reading. */
  signal?: AbortSignal | undefined;
}

/** Inputs opened for one model: what `predict` and `evaluate` need of a recipe. */
export interface ScoreSource {
  /** First column of score files. */
  idColumn: string;
  /** What a row is, for messages: `people`, `episodes`. */
  unit: string;
  /** What is drawn when resampling, for messages: `matched sets`. */
  group: string;
  /** What was left out and why, where the source counts it. */
  drops?: DropReport;
  /** Everything that can be scored; outcomes are not looked at. */
  score(options: ReadOptions): AsyncIterable<ScoreBatch>;
  /** Files that list the rows of a part, by input and without links, where such files are what makes a part. */
  partFiles?(part: string): Promise<string[]>;
  /** Everything with a known outcome in a part of the split, or in `all`. */
  labelled(part: string, options: ReadOptions): AsyncIterable<LabelledBatch>;
}

/** Opens inputs for a model; checks that recipe and model fit each other, and that the inputs are of the right kind. */
export type OpenSource = (bundle: Bundle, config: HPformerConfig, inputs: readonly string[]) => ScoreSource;

/** Every preprocessing that bundles may name. */
export const recipes: Readonly<Record<string, OpenSource>> = {
  nafld: nafldSource,
  health: healthSource,
};

/**
 * Opens inputs with the recipe that a bundle names.
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` for a recipe of other code; what the recipe throws.
 */
export function openSource(bundle: Bundle, config: HPformerConfig, inputs: readonly string[]): ScoreSource {
  const open = Object.hasOwn(recipes, bundle.recipe) ? recipes[bundle.recipe] : undefined;
  if (!open) {
    throw new HPformerError(
      'ERR_HPFORMER_CHECKPOINT',
      `${bundle.name}: expected a recipe among ${Object.keys(recipes).join(', ')}, got ${describe(bundle.recipe)}`,
    );
  }
  return open(bundle, config, inputs);
}

/** Names of the outputs: the configuration's, else what the bundle says of each, else their numbers. */
export function labelNames(config: HPformerConfig, labels: readonly string[] = []): readonly string[] {
  const { labels: count, names } = config.head;
  return names ?? (labels.length === count ? labels : Array.from({ length: count }, (_, i) => String(i)));
}

/** Columns of a score file after the id: `probability`, or `p_<name>` of several labels. */
export function scoreColumns(config: HPformerConfig, labels?: readonly string[]): string[] {
  return config.head.labels === 1 ? ['probability'] : labelNames(config, labels).map((name) => `p_${name}`);
}
