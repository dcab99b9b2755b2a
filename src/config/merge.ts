import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';

/** Every key optional, at every depth; lists are given whole. */
export type DeepPartial<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> | undefined }
    : T;

type Plain = Record<string, unknown>;

function isPlain(value: unknown): value is Plain {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

function mergeInto(base: Plain, over: Plain, depth: number): Plain {
  if (depth > 16)
    throw new HPformerError('ERR_HPFORMER_CONFIG', 'config: expected at most 16 levels of objects, got more');
  // Another `kind` (of embedding or positions) has other keys: nothing of the base applies to it.
  const fresh = over.kind !== undefined && base.kind !== undefined && over.kind !== base.kind;
  const result: Plain = Object.assign(Object.create(null), fresh ? {} : base);
  for (const key of Object.keys(over)) {
    const value = over[key];
    if (value === undefined) continue;
    const below = result[key];
    result[key] = isPlain(value) ? mergeInto(isPlain(below) ? below : {}, value, depth + 1) : value;
  }
  return result;
}

/**
 * Lays partial configurations over each other, later ones winning key by key; lists are replaced whole and a different
 * `kind` replaces its object. Nothing is validated here and the arguments stay as they are.
 *
 * @throws HPformerError `ERR_HPFORMER_CONFIG` when one of them is not an object.
 */
export function mergeConfigs(...parts: unknown[]): Plain {
  let result: Plain = {};
  for (const part of parts) {
    if (part === undefined || part === null) continue;
    if (!isPlain(part))
      throw new HPformerError('ERR_HPFORMER_CONFIG', `config: expected an object, got ${describe(part)}`);
    result = mergeInto(result, part, 0);
  }
  return result;
}
