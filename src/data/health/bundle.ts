import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { parseCheckpoint } from '../../checkpoint/load';
import type { HPformerConfig } from '../../config/types';
import { HPformerError } from '../../errors';
import { checkInteger } from '../../model/options';
import { describe } from '../../tensor/shape';
import { type Bundle, readBundle, writeBundle } from '../bundle';
import { checkFields, checkType, jsonText } from '../check';
import { type BinOptions, type BinSettings, checkNormalizer, findTask } from './arrays';
import { Calibration, type CalibrationJSON, checkCalibrations } from './calibration';
import { checkDiscretizeOptions } from './discretize';
import { Normalizer, type NormalizerJSON } from './normalizer';
import { columnNames, healthSchemaVersion, healthVariables } from './schema';
import { checkWindow, type HealthTask, type HealthTaskName, healthTasks } from './tasks';

/** The recipe of health bundles. */
export const healthRecipe = 'health';

/** What a health bundle says about its inputs; stored as the bundle's features. */
export interface HealthFeatures {
  recipe: 'health';
  version: 1;
  /** Version of the variable schema, see {@link healthSchemaVersion}. */
  schema: number;
  task: HealthTaskName;
  /** Steps that the model is fed. */
  steps: number;
  bins: BinSettings;
  /** Variables with categories in one-hot order, fills and units. */
  variables: { name: string; categories?: string[]; fill: string; unit?: string }[];
  /** Feature columns in order. */
  columns: string[];
  normalizer: NormalizerJSON;
  /** By label; null where raw probabilities stand. */
  calibration: (CalibrationJSON | null)[];
}

/** A health bundle's preprocessing, checked and ready to use. */
export interface HealthPreprocessing {
  task: HealthTask;
  bins: BinSettings;
  normalizer: Normalizer;
  calibration: (Calibration | null)[];
  /** SHA-256 (hex) of everything that changes the model's inputs. */
  hash: string;
}

/** What {@link writeHealthBundle} needs beside the model. */
export interface HealthBundleContent {
  name: string;
  task: HealthTaskName;
  normalizer: Normalizer;
  /** Discretiser options; defaults as published. */
  bins?: BinOptions | undefined;
  /** Steps of the model's input; default the task's. */
  steps?: number | undefined;
  /** One a label, or none. */
  calibration?: readonly (Calibration | null)[] | undefined;
  /** What the outputs mean. */
  labels: readonly string[];
  /** Origin, licence, intended use, limits. */
  provenance: Record<string, unknown>;
}

function refuse(where: string, message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: ${message}`);
}

function variablesJson(): HealthFeatures['variables'] {
  return healthVariables.map(({ name, categories, fill, unit }) => ({
    name,
    ...(categories ? { categories: [...categories] } : {}),
    fill,
    ...(unit === undefined ? {} : { unit }),
  }));
}

/**
 * The features block of a bundle.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for content of other types, `ERR_HPFORMER_RANGE` for another task, steps or bins,
 * `ERR_HPFORMER_CHECKPOINT` when the parts do not fit each other.
 */
export function healthFeatures(content: HealthBundleContent): HealthFeatures {
  checkFields('health bundle', content, { name: 'any', task: 'any', normalizer: 'any', labels: 'array' });
  const where = typeof content.name === 'string' ? content.name : 'health bundle';
  const task = findTask(healthTasks, content.task);
  const { step, fill, start, masks } = checkDiscretizeOptions(content.bins ?? {});
  const columns = columnNames(masks);
  checkNormalizer(`${where}: normalizer`, content.normalizer);
  if (content.normalizer.width !== columns.length) {
    throw refuse(where, `expected a normalizer of ${columns.length} columns, got ${content.normalizer.width}`);
  }
  if (content.steps !== undefined) checkInteger(`${where}: steps`, content.steps, 1, 2 ** 31 - 1);
  checkWindow(where, { ...task, steps: content.steps ?? task.steps }, step);
  checkCalibrations(where, content.calibration);
  const calibration = content.calibration ?? content.labels.map(() => null);
  if (calibration.length !== content.labels.length) {
    throw refuse(
      where,
      `expected a calibration (or null) for each of ${content.labels.length} labels, got ${calibration.length}`,
    );
  }
  return {
    recipe: healthRecipe,
    version: 1,
    schema: healthSchemaVersion,
    task: task.name,
    steps: content.steps ?? task.steps,
    bins: { step, fill, start, masks },
    variables: variablesJson(),
    columns,
    normalizer: content.normalizer.toJSON(),
    calibration: calibration.map((c) => c?.toJSON() ?? null),
  };
}

/**
 * One file of everything that a prediction needs: model, variables, categories, fills, normaliser, calibration, task and provenance, with
 * a content hash. `HPformer.load` takes it as a model.
 *
 * @param model bytes of a safetensors file that this package wrote (it carries its configuration).
 * @throws HPformerError as {@link healthFeatures}; what reading the model throws.
 */
export function writeHealthBundle(model: Uint8Array, content: HealthBundleContent): Uint8Array {
  checkType('health bundle: model', model, 'bytes');
  const features = healthFeatures(content);
  const repeated = content.labels.find((label, i) => content.labels.indexOf(label) !== i);
  if (repeated !== undefined)
    throw refuse(content.name, `labels: expected each name once, got ${describe(repeated)} twice`);
  const bytes = writeBundle(model, {
    name: content.name,
    recipe: healthRecipe,
    features,
    labels: [...content.labels],
    provenance: content.provenance,
  });
  // What loading would refuse is not written.
  readHealthPreprocessing(readBundle(bytes, content.name)!, parseCheckpoint(bytes, undefined, content.name).config);
  return bytes;
}

/**
 * Reads and checks the preprocessing of a health bundle against this version's schema and the model's configuration.
 *
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` for another recipe, version or schema, other variables, categories or fills, columns
 * that differ in number or order, a model with another feature count, readout or label count; `ERR_HPFORMER_TYPE` for arguments that are
 * no bundle or configuration.
 */
export function readHealthPreprocessing(bundle: Bundle, config: HPformerConfig): HealthPreprocessing {
  checkFields('health bundle', bundle, { name: 'string', recipe: 'any', features: 'object', labels: 'any' });
  checkFields('config', config, { embedding: 'object', head: 'object', segments: 'object' });
  const where = bundle.name;
  const features = bundle.features as Partial<HealthFeatures>;
  if (bundle.recipe !== healthRecipe || features.recipe !== healthRecipe) {
    throw refuse(where, `expected the recipe "${healthRecipe}", got ${describe(bundle.recipe)}`);
  }
  if (features.version !== 1) throw refuse(where, `expected features of version 1, got ${describe(features.version)}`);
  if (features.schema !== healthSchemaVersion) {
    throw refuse(
      where,
      `expected the variable schema of version ${healthSchemaVersion}, got ${describe(features.schema)}`,
    );
  }
  if (!isDeepStrictEqual(features.variables, variablesJson())) {
    const known = variablesJson();
    const at = known.findIndex((variable, i) => !isDeepStrictEqual(features.variables?.[i], variable));
    throw refuse(
      where,
      `variable ${at}: expected ${describe(known[at]?.name)} with its categories and fill, got ${describe(features.variables?.[at]?.name)} or other values`,
    );
  }
  const base = findTask(healthTasks, String(features.task));
  const steps = features.steps;
  if (!Number.isInteger(steps) || steps! < 1) throw refuse(where, `steps: expected an integer, got ${describe(steps)}`);
  const { step, fill, start, masks } = checkDiscretizeOptions(features.bins ?? {});
  const task: HealthTask = { ...base, steps: steps!, labels: config.head.labels };
  checkWindow(where, task, step);
  const { steps: own = null } = config.segments;
  if (own !== null && own !== steps) throw refuse(where, `expected the ${own} steps of the model, got ${steps}`);
  const columns = columnNames(masks);
  const given = features.columns ?? [];
  if (!Array.isArray(given)) throw refuse(where, `columns: expected an array, got ${describe(given)}`);
  if (given.length !== columns.length) {
    throw refuse(where, `expected ${columns.length} feature columns, got ${given.length}`);
  }
  const wrong = columns.findIndex((name, i) => given[i] !== name);
  if (wrong >= 0) {
    throw refuse(
      where,
      `column ${wrong}: expected ${describe(columns[wrong])} in this order, got ${describe(given[wrong])}`,
    );
  }
  const normalizer = Normalizer.fromJSON(features.normalizer);
  if (normalizer.width !== columns.length) {
    throw refuse(where, `expected a normalizer of ${columns.length} columns, got ${normalizer.width}`);
  }
  if (config.embedding.kind !== 'features' || config.embedding.size !== columns.length) {
    const got =
      config.embedding.kind === 'features'
        ? `${describe(config.embedding.size)} features`
        : String(config.embedding.kind);
    throw refuse(where, `expected a model of ${columns.length} features, got ${got}`);
  }
  if (config.readout !== base.readout || config.sequences !== 1) {
    throw refuse(where, `expected the readout "${base.readout}" for ${base.name}, got ${describe(config.readout)}`);
  }
  const calibration = features.calibration ?? [];
  if (!Array.isArray(calibration)) throw refuse(where, `calibration: expected an array, got ${describe(calibration)}`);
  checkType(`${where}: labels`, bundle.labels, 'array');
  if (bundle.labels.length !== config.head.labels || calibration.length !== config.head.labels) {
    throw refuse(
      where,
      `expected ${describe(config.head.labels)} labels with a calibration or null each, got ${bundle.labels.length} and ${calibration.length}`,
    );
  }
  return {
    task,
    bins: { step, fill, start, masks },
    normalizer,
    calibration: calibration.map((c) => (c === null ? null : Calibration.fromJSON(c))),
    hash: preprocessingHash(features as HealthFeatures),
  };
}

/**
 * SHA-256 (hex) of what changes the model's inputs: everything but the calibration.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for anything but the features block of a bundle.
 */
export function preprocessingHash(features: HealthFeatures): string {
  checkFields('preprocessingHash', features, {
    recipe: 'string',
    version: 'number',
    schema: 'number',
    task: 'string',
    steps: 'number',
    bins: 'object',
    variables: 'array',
    columns: 'array',
    normalizer: 'object',
  });
  const { calibration: _, ...inputs } = features;
  return createHash('sha256').update(jsonText('preprocessingHash', inputs)).digest('hex');
}
