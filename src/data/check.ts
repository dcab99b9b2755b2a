/** Arguments looked at where they come in, so that a mistake is an error with a code that says where, what was expected, what came. */
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { arrayName } from '../tensor/tensor';

/** A value of another type than a function takes. */
export function wrongType(where: string, expected: string, got: unknown): HPformerError {
  return new HPformerError('ERR_HPFORMER_TYPE', `${where}: expected ${expected}, got ${describe(got)}`);
}

/** An array, a typed array, or anything else with a length. */
export function isList(value: unknown): value is ArrayLike<unknown> {
  const length = typeof value === 'object' ? (value as { length?: unknown } | null)?.length : undefined;
  return Number.isSafeInteger(length) && (length as number) >= 0;
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
const isString = (value: unknown): boolean => typeof value === 'string';
const isNumber = (value: unknown): boolean => typeof value === 'number';

/** The types that arguments and their fields have, as messages call them. */
const types = {
  /** Looked at elsewhere; named where the whole object is missing. */
  any: ['anything', () => true],
  string: ['a string', isString],
  path: ['the path of a file or folder as text', (value) => isString(value) && !(value as string).includes('\0')],
  number: ['a number', isNumber],
  boolean: ['true or false', (value) => typeof value === 'boolean'],
  function: ['a function', (value) => typeof value === 'function'],
  object: ['an object', isObject],
  array: ['an array', Array.isArray],
  bytes: ['bytes (a Uint8Array)', (value) => arrayName(value) === 'Uint8Array'],
  float32: ['a Float32Array', (value) => arrayName(value) === 'Float32Array'],
  strings: ['an array of strings', (value) => Array.isArray(value) && value.every(isString)],
  numberArray: ['an array of numbers', (value) => Array.isArray(value) && value.every(isNumber)],
  /** As its name says; the elements of large lists are looked at where they are used. */
  list: ['a list of numbers', isList],
  /** As list, every element looked at; typed arrays of 64-bit integers hold no numbers. */
  numbers: [
    'a list of numbers',
    (value) => (Array.isArray(value) ? value.every(isNumber) : isList(value) && !arrayName(value)?.startsWith('Big')),
  ],
} satisfies Record<string, [expected: string, test: (value: unknown) => boolean]>;

/** A type by name; with `?` undefined is fine as well. */
export type TypeName = keyof typeof types | `${keyof typeof types}?`;

/** Checks the type of a value. @throws HPformerError `ERR_HPFORMER_TYPE`. */
export function checkType(where: string, value: unknown, type: TypeName): void {
  const optional = type.endsWith('?');
  const [expected, test] = types[(optional ? type.slice(0, -1) : type) as keyof typeof types];
  if (!(optional && value === undefined) && !test(value)) throw wrongType(where, expected, value);
}

/** Checks that a value is an object whose fields have these types. @throws HPformerError `ERR_HPFORMER_TYPE`. */
export function checkFields(where: string, value: unknown, fields: Readonly<Record<string, TypeName>>): void {
  if (!isObject(value)) {
    const names = Object.keys(fields).filter((name) => !fields[name]!.endsWith('?'));
    throw wrongType(where, names.length === 0 ? 'an object' : `{ ${names.join(', ')} }`, value);
  }
  for (const [name, type] of Object.entries(fields)) {
    checkType(`${where}: ${name}`, (value as Record<string, unknown>)[name], type);
  }
}

/** As {@link checkFields}, for every element of an array. */
export function checkEach(where: string, value: unknown, fields: Readonly<Record<string, TypeName>>): void {
  checkType(where, value, 'array');
  for (const [i, one] of (value as unknown[]).entries()) checkFields(`${where}[${i}]`, one, fields);
}

/** Checks options that may be left out; where null was always as good as nothing, it stays so. */
export function checkOptions(where: string, options: unknown): void {
  if (options !== null) checkType(`${where}: options`, options, 'object?');
}

/** A list has a length: caught here, a missing argument is an error with a code. */
export function checkList(where: string, name: string, value: unknown): void {
  checkType(`${where}: ${name}`, value, 'list');
}

/** JSON text of a value. @throws HPformerError `ERR_HPFORMER_TYPE` for what JSON cannot hold (a circle, a bigint). */
export function jsonText(where: string, value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    throw wrongType(where, 'plain data that JSON can hold', value);
  }
}

/** A 0/1 label as a number; NaN for anything else. */
export function zeroOrOne(value: unknown): number {
  const label = typeof value === 'object' || typeof value === 'symbol' ? Number.NaN : Number(value);
  return label === 0 || label === 1 ? label : Number.NaN;
}
