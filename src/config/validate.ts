import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { configSchema, type Family, type Field } from './schema';
import type { HPformerConfig } from './types';

function fail(where: string, expected: string, got: unknown): never {
  throw new HPformerError('ERR_HPFORMER_CONFIG', `${where}: expected ${expected}, got ${describe(got)}`);
}

type Plain = Record<string, unknown>;

function asPlainObject(where: string, value: unknown): Plain {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    fail(where, 'an object', value);
  }
  return value as Plain;
}

/** Normalizes the fields of one object: unknown and missing keys are errors, absent ones get their defaults. */
function readFields(
  where: string,
  value: Plain,
  fields: Readonly<Record<string, Field>>,
  family: Family,
  tag?: string,
): Plain {
  const unknown = Object.keys(value).filter((key) => key !== tag && !Object.hasOwn(fields, key));
  if (unknown.length > 0) {
    const known = [...(tag === undefined ? [] : [tag]), ...Object.keys(fields)].join(', ');
    throw new HPformerError(
      'ERR_HPFORMER_CONFIG',
      `${where}: unknown ${unknown.length > 1 ? 'keys' : 'key'} ${unknown.slice(0, 8).map(describe).join(', ')}; known are ${known}`,
    );
  }
  const result: Plain = {};
  const missing: string[] = [];
  for (const [key, field] of Object.entries(fields)) {
    let item = Object.hasOwn(value, key) ? value[key] : undefined;
    if (item === undefined) item = fallbackOf(field, family);
    if (item !== undefined) result[key] = readField(`${where}.${key}`, item, field, family);
    else if (!field.optional) missing.push(key);
  }
  if (missing.length > 0) {
    throw new HPformerError(
      'ERR_HPFORMER_CONFIG',
      `${where}: expected ${missing.map(describe).join(', ')}, got no such key`,
    );
  }
  return result;
}

/** The default of an absent key in a family, or undefined when there is none. */
function fallbackOf(field: Field, family: Family): unknown {
  if (field.fallback === undefined) return undefined;
  return 'value' in field.fallback ? field.fallback.value : field.fallback.family[family];
}

function readField(where: string, value: unknown, field: Field, family: Family): unknown {
  switch (field.type) {
    case 'integer': {
      if (value === null && field.nullable) return null;
      if (!Number.isInteger(value) || (value as number) < field.minimum || (value as number) > field.maximum) {
        fail(where, `an integer from ${field.minimum} to ${field.maximum}${field.nullable ? ', or null' : ''}`, value);
      }
      return value;
    }
    case 'boolean':
      if (typeof value !== 'boolean') fail(where, 'true or false', value);
      return value;
    case 'string':
      if (typeof value !== 'string' || value.length === 0 || value.length > field.maximumLength) {
        fail(where, `a string of 1 to ${field.maximumLength} characters`, value);
      }
      return value;
    case 'choice': {
      const spelled =
        field.spellings && typeof value === 'string' && Object.hasOwn(field.spellings, value)
          ? field.spellings[value]
          : value;
      if (!field.of.includes(spelled as string | number)) fail(where, field.of.map(describe).join(' or '), value);
      return spelled;
    }
    case 'list': {
      if (!Array.isArray(value) || value.length > field.maximumLength) {
        fail(
          where,
          `an array of at most ${field.maximumLength}`,
          Array.isArray(value) ? `${value.length} items` : value,
        );
      }
      return Array.from(value, (item, index) => readField(`${where}[${index}]`, item, field.item, family));
    }
    case 'object':
      return readFields(where, asPlainObject(where, value), field.fields, family);
    case 'variant': {
      const item = asPlainObject(where, value);
      const kind = Object.hasOwn(item, 'kind') ? item.kind : undefined;
      if (typeof kind !== 'string' || !Object.hasOwn(field.cases, kind)) {
        fail(`${where}.kind`, Object.keys(field.cases).map(describe).join(' or '), kind);
      }
      return { kind, ...readFields(where, item, field.cases[kind]!.fields, family, 'kind') };
    }
  }
}

/** The family whose defaults apply to a (possibly incomplete) configuration. */
export function familyOf(config: { embedding?: { kind?: unknown } | undefined } | null | undefined): Family {
  return config?.embedding?.kind === 'features' ? 'health' : 'longRange';
}

function checkTogether(config: HPformerConfig): void {
  const { embedding, positions, segments, head } = config;
  if (config.hidden % config.heads !== 0) {
    fail('config.heads', `a divisor of hidden (${config.hidden})`, config.heads);
  }
  if (embedding.kind === 'tokens' && embedding.padding !== null && embedding.padding >= embedding.vocabulary) {
    fail('config.embedding.padding', `an id below vocabulary (${embedding.vocabulary})`, embedding.padding);
  }
  if (positions.kind === 'sinusoidal' && positions.layout === 'halves' && config.hidden < 4) {
    fail('config.hidden', "at least 4 for positions of layout 'halves'", config.hidden);
  }
  if (segments.rule === 'paper' && segments.times !== 1)
    fail('config.segments.times', "1 with rule 'paper'", segments.times);
  if (config.sequences === 2 && config.readout !== 'mean')
    fail('config.readout', "'mean' with two sequences", config.readout);
  if (config.sequences === 2 && embedding.kind === 'features') {
    fail('config.embedding.kind', '"tokens" or "scalar" with two sequences', embedding.kind);
  }
  if (head.names === undefined) return;
  if (head.names.length !== head.labels) {
    throw new HPformerError(
      'ERR_HPFORMER_CONFIG',
      `config.head.names: expected ${head.labels} names (head.labels), got ${head.names.length}`,
    );
  }
  const seen = new Set<string>();
  for (const name of head.names) {
    if (seen.has(name)) fail('config.head.names', 'distinct names', name);
    seen.add(name);
  }
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const item of Object.values(value)) freeze(item);
    Object.freeze(value);
  }
  return value;
}

/**
 * Checks a configuration and completes it with the defaults of the table in schema.ts (design section 2).
 *
 * @param value anything, typically parsed JSON; it is not changed.
 * @returns a deep-frozen complete copy with upstream spellings resolved.
 * @throws HPformerError `ERR_HPFORMER_CONFIG` naming the key, what it should be and what it is.
 */
export function validateConfig(value: unknown): HPformerConfig {
  const plain = asPlainObject('config', value);
  const embedding = plain.embedding as { kind?: unknown } | undefined;
  const config = readFields('config', plain, configSchema.fields, familyOf({ embedding })) as unknown as HPformerConfig;
  checkTogether(config);
  return freeze(config);
}
