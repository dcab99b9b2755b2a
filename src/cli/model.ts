import { isDeepStrictEqual } from 'node:util';
import type { HPformerConfig } from '../config/types';
import { validateConfig } from '../config/validate';
import type { Bundle } from '../data/bundle';
import { findModel } from '../data/modelDirectory';
import { HPformerError } from '../errors';
import { readJson } from '../files';
import { HPformer } from '../model/hpformer';
import { deviceNames } from '../model/options';
import type { DeviceRequest, LoadOptions, Precision } from '../model/types';
import { choiceOption, integerOption, type Options, textOption, UsageError, type Values } from './command';

/** Options of every command that loads a model. */
export const modelOptions: Options = {
  device: { type: 'string', value: 'name', help: 'auto (default), cpu, reference, cuda, cuda:<n>, cuda:all' },
  precision: { type: 'string', value: 'name', help: 'float32 (default) or bfloat16' },
  threads: { type: 'string', value: 'n', help: "threads of a run (default: the container's share of the machine)" },
};

/** Load options from the command line. @throws UsageError. */
export function loadOptions(values: Values): LoadOptions {
  const device = textOption(values, 'device');
  if (device !== undefined && !deviceNames.test(device)) {
    throw new UsageError(`--device: expected auto, cpu, reference, cuda, cuda:<n> or cuda:all, got "${device}"`);
  }
  const precision = choiceOption<Precision>(values, 'precision', ['float32', 'bfloat16']);
  const threads = integerOption(values, 'threads', 1, 1024);
  return { device: device as DeviceRequest | undefined, precision, threads };
}

/** A configuration file: the configuration itself, or an object that has it under `config`. */
export async function readConfig(file: string): Promise<HPformerConfig> {
  const json = await readJson(file, 'a JSON configuration');
  const inner = typeof json === 'object' && json !== null && 'config' in json ? json.config : json;
  return inner as HPformerConfig;
}

/** A model directory, bundle or checkpoint, loaded. */
export interface OpenModel {
  model: HPformer;
  /** Undefined for a plain checkpoint. */
  bundle?: Bundle;
}

/**
 * Loads what a path names. A directory's configuration file must say what the weights were saved with.
 * @throws HPformerError what `findModel` and `HPformer.load` throw.
 */
export async function openModel(source: string, options: LoadOptions): Promise<OpenModel> {
  const found = await findModel(source);
  let model: HPformer;
  try {
    model = await HPformer.load(found.bytes, options);
  } catch (error) {
    // Bytes have no name; the message should have the path.
    if (error instanceof HPformerError && !error.message.includes(found.where)) {
      throw new HPformerError(error.code, `${found.where}: ${error.message.replace(/^checkpoint: /, '')}`, {
        cause: error,
      });
    }
    throw error;
  }
  if (found.config !== undefined && !isDeepStrictEqual(validateConfig(found.config), model.config)) {
    model.dispose();
    throw new HPformerError(
      'ERR_HPFORMER_CHECKPOINT',
      `${found.where}: expected the configuration inside the weights file, got another one`,
    );
  }
  return found.bundle ? { model, bundle: found.bundle } : { model };
}

/** As {@link openModel}, for what needs a feature recipe. */
export async function openBundle(source: string, options: LoadOptions): Promise<Required<OpenModel>> {
  const { model, bundle } = await openModel(source, options);
  if (!bundle) {
    model.dispose();
    throw new HPformerError(
      'ERR_HPFORMER_CHECKPOINT',
      `${source}: expected a model directory or bundle (weights with their feature recipe), got a plain checkpoint`,
    );
  }
  return { model, bundle };
}
