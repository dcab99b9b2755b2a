/**
 * Decimal numbers from bytes, to the bits that `Number(text)` gives, without making a string. Python writes hours with 16 or 17 digits,
 * which is most of what parsing an episode file costs.
 */

const powers = Float64Array.from({ length: 23 }, (_, k) => Number(`1e${k}`));
const splitter = 134217729; // 2^27 + 1: Dekker's split of a double into two halves of 26 bits

/**
 * Reads `bytes[begin, end)` as `-?digits[.digits]` with a digit somewhere, exactly rounded.
 *
 * @returns undefined for anything else, and for more digits than it can round for certain (about one number in 10^13 of 17 digits).
 */
export function decimalBytes(bytes: Uint8Array, begin: number, end: number): number | undefined {
  // Nearly all values: at most fifteen digits, perhaps a point.
  if (end - begin <= 15) {
    let whole = 0;
    let after = 0;
    let at = begin;
    for (; at < end; at++) {
      const digit = bytes[at]! - 0x30;
      if (digit >= 0 && digit <= 9) whole = whole * 10 + digit;
      else if (digit === -2 && after === 0) after = at + 1;
      else break;
    }
    if (at === end && end - begin > (after === 0 ? 0 : 1)) return after === 0 ? whole : whole / powers[end - after]!;
  }
  return longDecimal(bytes, begin, end);
}

function longDecimal(bytes: Uint8Array, begin: number, end: number): number | undefined {
  let at = begin;
  const negative = bytes[at] === 0x2d;
  if (negative) at++;
  // The digits without leading zeros: the first nine in `high`, up to nine more in `low`; the rest are counted.
  let high = 0;
  let low = 0;
  let digits = 0;
  let lowScale = 1;
  let point = -1;
  let seen = false;
  for (; at < end; at++) {
    const digit = bytes[at]! - 0x30;
    if (digit >= 0 && digit <= 9) {
      seen = true;
      if (digits === 0 && digit === 0) continue;
      if (digits < 9) high = high * 10 + digit;
      else {
        low = low * 10 + digit;
        lowScale *= 10;
      }
      digits++;
    } else if (digit === -2 && point < 0) {
      point = at;
    } else {
      return undefined;
    }
  }
  if (!seen || digits > 18) return undefined;
  const fraction = point < 0 ? 0 : end - point - 1;
  if (fraction > 22) return undefined;
  const value = digits <= 15 ? (high * lowScale + low) / powers[fraction]! : divide(high * lowScale, low, fraction);
  if (Number.isNaN(value)) return undefined;
  return negative ? -value : value;
}

/**
 * (whole + low) / 10^fraction, exactly rounded: a first quotient, the exact rest of it, and the certainty that their sum rounds one way
 * (else NaN). `whole` is exact, since it is below 2^30 times a power of ten up to 10^9, and not below `low`.
 */
function divide(whole: number, low: number, fraction: number): number {
  const sum = whole + low;
  if (fraction === 0) return sum;
  const rest = low - (sum - whole);
  const by = powers[fraction]!;
  const first = sum / by;
  // first * by = product + error, both exact.
  const product = first * by;
  const a = splitter * first;
  const a1 = a - (a - first);
  const a2 = first - a1;
  const b = splitter * by;
  const b1 = b - (b - by);
  const b2 = by - b1;
  const error = a2 * b2 - (product - a1 * b1 - a2 * b1 - a1 * b2);
  const second = (sum - product - error + rest) / by;
  const doubt = Math.abs(first) * 2 ** -96 + Math.abs(second) * 2 ** -48;
  const value = first + (second - doubt);
  return value === first + (second + doubt) ? value : Number.NaN;
}
