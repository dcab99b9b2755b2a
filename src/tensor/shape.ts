import { HPformerError } from '../errors';

/** A short, safe rendering of any value for an error message. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null || typeof value !== 'object') return String(value);
  if (Array.isArray(value)) {
    // One level only: a hostile array may nest without end or hold itself.
    const items = value.slice(0, 8).map((item) => (Array.isArray(item) ? '[...]' : describe(item)));
    return `[${items.join(', ')}${value.length > 8 ? ', ...' : ''}]`;
  }
  return Object.prototype.toString.call(value).slice(8, -1);
}

/**
 * Product of dims, checked: every dim a non-negative safe integer, the product a safe integer.
 * @throws HPformerError `ERR_HPFORMER_SHAPE`.
 */
export function elementCount(where: string, dims: readonly number[]): number {
  if (!Array.isArray(dims)) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `${where}: expected dims as an array of integers, got ${describe(dims)}`,
    );
  }
  let count = 1;
  for (const dim of dims) {
    if (!Number.isSafeInteger(dim) || dim < 0) {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${where}: expected non-negative integer dims, got [${dims.map(describe).join(', ')}]`,
      );
    }
    count *= dim;
  }
  if (!Number.isSafeInteger(count)) {
    throw new HPformerError('ERR_HPFORMER_SHAPE', `${where}: the product of dims [${dims.join(', ')}] is too large`);
  }
  return count;
}
