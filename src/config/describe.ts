import { configSchema, type Field } from './schema';

type Json = Record<string, unknown>;

function jsonOf(field: Field): Json {
  const common: Json = { description: field.doc };
  if (field.fallback && 'value' in field.fallback) common.default = field.fallback.value;
  switch (field.type) {
    case 'integer':
      return {
        ...common,
        type: field.nullable ? ['integer', 'null'] : 'integer',
        minimum: field.minimum,
        maximum: field.maximum,
      };
    case 'boolean':
      return { ...common, type: 'boolean' };
    case 'string':
      return { ...common, type: 'string', minLength: 1, maxLength: field.maximumLength };
    case 'choice':
      return { ...common, enum: [...field.of, ...Object.keys(field.spellings ?? {})] };
    case 'list':
      return { ...common, type: 'array', items: jsonOf(field.item), maxItems: field.maximumLength };
    case 'object':
      return { ...common, ...jsonFields(field.fields) };
    case 'variant':
      return {
        ...common,
        oneOf: Object.entries(field.cases).map(([kind, { doc, fields }]) => {
          const { required, properties, ...rest } = jsonFields(fields) as { required: string[]; properties: Json };
          return {
            description: doc,
            ...rest,
            properties: { kind: { const: kind }, ...properties },
            required: ['kind', ...required],
          };
        }),
      };
  }
}

function jsonFields(fields: Readonly<Record<string, Field>>): Json {
  const entries = Object.entries(fields);
  return {
    type: 'object',
    properties: Object.fromEntries(entries.map(([key, field]) => [key, jsonOf(field)])),
    required: entries.filter(([, field]) => !field.optional && field.fallback === undefined).map(([key]) => key),
    additionalProperties: false,
  };
}

/**
 * JSON schema (draft 2020-12) of {@link HPformerConfig}, from the same table as the validation. It cannot say what
 * depends on several keys at once (heads dividing hidden, defaults by family): `validateConfig` is the judge.
 */
export function configJsonSchema(): Json {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'HPformerConfig', ...jsonOf(configSchema) };
}

/** One row of the configuration reference. */
export interface ConfigRow {
  key: string;
  type: string;
  default: string;
  doc: string;
}

function defaultText(field: Field): string {
  if (field.optional) return 'absent';
  if (field.fallback === undefined) return 'required';
  if ('value' in field.fallback) return JSON.stringify(field.fallback.value);
  const of = (value: unknown) => (value === undefined ? 'required' : JSON.stringify(value));
  const { health, longRange } = field.fallback.family;
  return of(health) === of(longRange) ? of(health) : `features: ${of(health)}; tokens, scalar: ${of(longRange)}`;
}

function typeText(field: Field): string {
  switch (field.type) {
    case 'integer':
      return `integer ${field.minimum}…${field.maximum}${field.nullable ? ' or null' : ''}`;
    case 'choice':
      return field.of.map((value) => JSON.stringify(value)).join(' or ');
    case 'variant':
      return `kind ${Object.keys(field.cases)
        .map((kind) => JSON.stringify(kind))
        .join(' or ')}`;
    case 'list':
      return `list of ${field.item.type}s`;
    default:
      return field.type;
  }
}

function rowsOf(prefix: string, fields: Readonly<Record<string, Field>>): ConfigRow[] {
  return Object.entries(fields).flatMap(([name, field]) => {
    const key = `${prefix}${name}`;
    const row = { key, type: typeText(field), default: defaultText(field), doc: field.doc };
    if (field.type === 'object') return [row, ...rowsOf(`${key}.`, field.fields)];
    if (field.type === 'list' && field.item.type === 'object') return [row, ...rowsOf(`${key}[].`, field.item.fields)];
    if (field.type === 'variant') {
      return [
        row,
        ...Object.entries(field.cases).flatMap(([kind, { fields: inner }]) => rowsOf(`${key}(${kind}).`, inner)),
      ];
    }
    return [row];
  });
}

/** The configuration reference, row by row in the order of the schema; the README's table is made from it. */
export function configRows(): ConfigRow[] {
  return rowsOf('', configSchema.fields);
}
