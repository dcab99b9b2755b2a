import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import { parameterShapes } from './names';
import { type StateDict, type StoredTensor, type WeightTensor, widen } from './tensors';
import { meaningOf, type NameFamily, nameFamilyOf } from './upstream';

/** A state dict with its keys understood. */
export interface NamedTensors {
  family: NameFamily;
  /** By canonical name, with the file's own key for messages. */
  parameters: Map<string, { key: string; tensor: StoredTensor }>;
  /** Keys of tensors that no forward pass reads. */
  dead: string[];
}

function fail(where: string, message: string): never {
  throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: ${message}`);
}

/** At most twelve names of a list. */
function listed(names: string[]): string {
  return names.length > 12 ? `${names.slice(0, 12).join(', ')} and ${names.length - 12} more` : names.join(', ');
}

/**
 * Gives every key of a state dict its meaning: ours, the health code's or the long-range code's names (reference sections
 * 3.5 and 4), also behind the `module.` of a data-parallel wrapper. Dead tensors are set aside by name.
 *
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` listing keys that are unknown or mean the same parameter.
 */
export function nameTensors(state: StateDict, where: string): NamedTensors {
  const keys = [...state.tensors.keys()];
  if (keys.length === 0) fail(where, 'expected tensors, got none');
  const wrapped = keys.every((key) => key.startsWith('module.')) ? 'module.'.length : 0;
  const family = nameFamilyOf(keys.map((key) => key.slice(wrapped)));
  const result: NamedTensors = { family, parameters: new Map(), dead: [] };
  const unknown: string[] = [];
  for (const [key, tensor] of state.tensors) {
    const meaning = meaningOf(family, key.slice(wrapped));
    if (meaning === 'unknown') unknown.push(key);
    else if (meaning === 'dead') result.dead.push(key);
    else {
      const twin = result.parameters.get(meaning.parameter);
      if (twin) fail(where, `${twin.key} and ${key} are the same parameter (${meaning.parameter})`);
      result.parameters.set(meaning.parameter, { key, tensor });
    }
  }
  if (unknown.length > 0) fail(where, `unknown tensors ${listed(unknown)}`);
  return result;
}

/**
 * The parameters of a configuration from a state dict: all there, of the right shapes, finite; nothing left over. `own`: nobody else
 * has the bytes that the tensors lie in.
 *
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` listing what is missing, not taken by the configuration, or of another shape.
 */
export function assemble(
  config: HPformerConfig,
  named: NamedTensors,
  where: string,
  own = false,
): Map<string, WeightTensor> {
  const shapes = parameterShapes(config);
  const missing = [...shapes.keys()].filter((name) => !named.parameters.has(name));
  if (missing.length > 0) fail(where, `missing tensors ${listed(missing)}`);
  const extra = [...named.parameters].filter(([name]) => !shapes.has(name)).map(([, { key }]) => key);
  if (extra.length > 0) fail(where, `tensors that the configuration does not take: ${listed(extra)}`);
  const wrong: string[] = [];
  for (const [name, dims] of shapes) {
    const { key, tensor } = named.parameters.get(name)!;
    if (tensor.dims.length !== dims.length || tensor.dims.some((dim, axis) => dim !== dims[axis])) {
      wrong.push(`${key}: expected [${dims.join(', ')}], got [${tensor.dims.join(', ')}]`);
    }
  }
  if (wrong.length > 0)
    fail(where, wrong.slice(0, 6).join('; ') + (wrong.length > 6 ? ` and ${wrong.length - 6} more` : ''));
  const weights = new Map<string, WeightTensor>();
  for (const name of shapes.keys()) {
    const { key, tensor } = named.parameters.get(name)!;
    const weight = widen(`${where}: ${key}`, tensor, own);
    if (name.endsWith('.variance')) checkVariance(`${where}: ${key}`, weight);
    weights.set(name, weight);
  }
  return weights;
}

function checkVariance(where: string, weight: WeightTensor): void {
  const at = weight.data.findIndex((value) => value < 0);
  if (at >= 0) fail(where, `expected variances of at least 0, got ${weight.data[at]} at element ${at}`);
}
