import { HPformerError } from '../errors';

/** JSON values with objects as Maps, so that duplicate keys are seen and no key is special. */
export type Json = null | boolean | number | string | Json[] | Map<string, Json>;

const depthLimit = 64;
/** Members of the outermost object. A tensor is one; the most layers that a configuration takes have 45,056. */
const memberLimit = 3 * 2 ** 14;
/** Values in one member. A tensor has 8; without a limit a value takes a hundred times the memory of its two characters in the file. */
const valueLimit = 2 ** 16;
const scalar = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

/**
 * Strict JSON that refuses what JSON.parse lets pass: duplicate keys, malformed UTF-8, a byte-order mark, deep nesting, more than
 * 49,152 members of the outermost object, more than 65,536 values in one of them.
 *
 * @param use takes the members of the outermost object one by one; they are not kept then (null stands for them in the result).
 * @throws HPformerError `ERR_HPFORMER_FILE` with the position.
 */
export function parseJson(bytes: Uint8Array, where: string, use?: (key: string, value: Json) => void): Json {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${where}: expected a header in UTF-8`, { cause });
  }
  let at = 0;
  let values = 0;
  const fail = (expected: string): never => {
    const got = at < text.length ? JSON.stringify(text.slice(at, at + 12)) : 'the end';
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `${where}: expected ${expected} at character ${at} of the header, got ${got}`,
    );
  };
  const skip = () => {
    for (let code = text.charCodeAt(at); code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09; )
      code = text.charCodeAt(++at);
  };
  const take = (token: string): boolean => {
    skip();
    if (text[at] !== token) return false;
    at++;
    return true;
  };
  // By hand, since a regular expression would need a stack as long as the string.
  const readString = (): string => {
    let end = at;
    let escapes: number;
    do {
      end = text.indexOf('"', end + 1);
      if (end < 0) fail('a closed string');
      escapes = 0;
      while (text[end - 1 - escapes] === '\\') escapes++;
    } while (escapes % 2 === 1);
    try {
      const value = JSON.parse(text.slice(at, end + 1)) as string;
      at = end + 1;
      return value;
    } catch {
      return fail('a string');
    }
  };
  const readScalar = (): null | boolean | number | string => {
    skip();
    if (text[at] === '"') return readString();
    scalar.lastIndex = at;
    if (!scalar.test(text)) return fail('a JSON value');
    const start = at;
    at = scalar.lastIndex;
    return JSON.parse(text.slice(start, at));
  };
  const readObject = (depth: number): Map<string, Json> => {
    const result = new Map<string, Json>();
    if (take('}')) return result;
    do {
      skip();
      if (text[at] !== '"') fail('a key');
      const start = at;
      const key = readString();
      if (result.has(key)) {
        at = start;
        fail('distinct keys');
      }
      if (!take(':')) fail('":"');
      if (depth > 1) {
        result.set(key, readValue(depth));
        continue;
      }
      if (result.size === memberLimit) fail(`at most ${memberLimit} members`);
      values = 0;
      const value = readValue(depth);
      use?.(key, value);
      result.set(key, use ? null : value);
    } while (take(','));
    if (!take('}')) fail('"," or "}"');
    return result;
  };
  const readArray = (depth: number): Json[] => {
    const result: Json[] = [];
    if (take(']')) return result;
    do result.push(readValue(depth));
    while (take(','));
    if (!take(']')) fail('"," or "]"');
    return result;
  };
  const readValue = (depth: number): Json => {
    if (depth > depthLimit) fail(`at most ${depthLimit} levels`);
    if (++values > valueLimit) fail(`at most ${valueLimit} values`);
    if (take('{')) return readObject(depth + 1);
    if (take('[')) return readArray(depth + 1);
    return readScalar();
  };
  const value = readValue(0);
  skip();
  if (at !== text.length) fail('the end');
  return value;
}
