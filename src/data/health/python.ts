/**
 * Pieces of Python's behaviour that the published pipeline depends on: how `float()` reads text, how `repr` writes a float, what
 * `str.strip` removes, and the shuffle of the `random` module.
 */

// What str.strip() and float() treat as white space; String.prototype.trim differs (it adds U+FEFF, lacks U+001C…1F and U+0085).
const space = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const leadingSpace = new RegExp(`^[${space}]+`);
const trailingSpace = new RegExp(`[${space}]+$`);
const plain = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const underscored = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][+-]?\d+(?:_\d+)*)?$/;
const special = /^([+-]?)(inf|infinity|nan)$/i;
const decimalDigit = /\p{Nd}/u;

/** `text.strip()`. */
export function pythonStrip(text: string): string {
  const first = text.charCodeAt(0);
  const last = text.charCodeAt(text.length - 1);
  if (first > 0x20 && first < 0x7f && last > 0x20 && last < 0x7f) return text;
  return text.replace(leadingSpace, '').replace(trailingSpace, '');
}

/** True for digits with at most one point among or before them: what nearly all fields are, told without a regular expression. */
function isDecimal(text: string): boolean {
  let points = 0;
  const { length } = text;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x2e) points++;
    else if (code < 0x30 || code > 0x39) return false;
  }
  return points <= 1 && length > points;
}

/** The value of a decimal digit of any script. Digits come in runs of ten; only the mathematical ones follow each other directly. */
function digitValue(code: number): number {
  if (code >= 0x1d7ce && code <= 0x1d7ff) return (code - 0x1d7ce) % 10;
  let value = 0;
  while (value < 9 && decimalDigit.test(String.fromCodePoint(code - value - 1))) value++;
  return value;
}

/**
 * Reads a number as Python's `float(text)` does: surrounding white space, a sign, `1_000`, `.5`, `7.`, `1e3`, `inf`, `nan` in any
 * case and digits of any script are read; hexadecimal, empty text and anything after the number are not.
 *
 * @returns the number (NaN for `nan`), or undefined where Python raises ValueError.
 */
export function pythonFloat(text: string): number | undefined {
  if (isDecimal(text)) return Number(text);
  if (plain.test(text)) return Number(text);
  const stripped = pythonStrip(text);
  if (plain.test(stripped)) return Number(stripped);
  const word = special.exec(stripped);
  if (word) {
    if (word[2]!.toLowerCase() === 'nan') return Number.NaN;
    return word[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  }
  const ascii = /[^\x20-\x7e]/.test(stripped)
    ? stripped.replace(/\p{Nd}/gu, (digit) => String(digitValue(digit.codePointAt(0)!)))
    : stripped;
  return underscored.test(ascii) ? Number(ascii.replaceAll('_', '')) : undefined;
}

/** Writes a float as Python's `repr`: shortest text that reads back, always with a point or an exponent, `1e-05`, `1e+16`, `nan`. */
export function pythonRepr(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const [mantissa, exponentText] = value.toExponential().split('e') as [string, string];
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  const text = String(value);
  return text.includes('.') ? text : `${text}.0`;
}

/**
 * `round(value)` to an integer with ties to the even neighbour, as Python and numpy round.
 */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const part = value - floor;
  if (part !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The generator behind Python's `random` module (MT19937, seeded with an integer below 2³²), for its `shuffle`. */
export class PythonRandom {
  private readonly state = new Uint32Array(624);
  private index = 624;

  constructor(seed: number) {
    const s = this.state;
    s[0] = 19650218;
    for (let i = 1; i < 624; i++) s[i] = Math.imul(1812433253, s[i - 1]! ^ (s[i - 1]! >>> 30)) + i;
    // init_by_array with the one-word key [seed].
    let i = 1;
    for (let k = 0; k < 624; k++) {
      s[i] = (s[i]! ^ Math.imul(s[i - 1]! ^ (s[i - 1]! >>> 30), 1664525)) + (seed >>> 0);
      if (++i === 624) {
        s[0] = s[623]!;
        i = 1;
      }
    }
    for (let k = 0; k < 623; k++) {
      s[i] = (s[i]! ^ Math.imul(s[i - 1]! ^ (s[i - 1]! >>> 30), 1566083941)) - i;
      if (++i === 624) {
        s[0] = s[623]!;
        i = 1;
      }
    }
    s[0] = 0x80000000;
  }

  private next(): number {
    const s = this.state;
    if (this.index === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (s[k]! & 0x80000000) | (s[(k + 1) % 624]! & 0x7fffffff);
        s[k] = s[(k + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.index = 0;
    }
    let y = s[this.index++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** An integer in [0, n), 1 ≤ n < 2³², by rejection. */
  below(n: number): number {
    const bits = 32 - Math.clz32(n);
    for (;;) {
      const r = this.next() >>> (32 - bits);
      if (r < n) return r;
    }
  }

  /** `random.shuffle(list)`, in place. */
  shuffle<T>(list: T[]): void {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [list[i], list[j]] = [list[j]!, list[i]!];
    }
  }
}
