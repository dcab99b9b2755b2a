import { Xoshiro128 } from '../random';

/**
 * Random weights: streams of one seed, told apart by a name. Reals use only + − × ÷ and √, which IEEE 754 fixes to the last bit
 * (Math.log and Math.cos may differ between platforms).
 */
export class Random extends Xoshiro128 {
  /** @param seed a non-negative safe integer. @param stream different names give independent streams of one seed. */
  constructor(seed: number, stream: string) {
    super();
    // FNV-1a over the name, then splitmix32 steps over seed halves and hash fill the state.
    let hash = 0x811c9dc5;
    for (let i = 0; i < stream.length; i++) hash = Math.imul(hash ^ stream.charCodeAt(i), 0x01000193);
    let mixed = (Math.floor(seed / 2 ** 32) ^ hash) >>> 0;
    for (let i = 0; i < 4; i++) {
      mixed = (mixed + 0x9e3779b9) >>> 0;
      let word = (mixed ^ (i % 2 === 0 ? seed >>> 0 : hash)) >>> 0;
      word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
      word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
      this.state[i] = word ^ (word >>> 15);
      mixed = (mixed + this.state[i]!) >>> 0;
    }
    // The all-zero state is the only one that the generator cannot leave.
    if (this.state.every((word) => word === 0)) this.state[0] = 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.next() >>> 5) * 2 ** 26 + (this.next() >>> 6)) / 2 ** 53;
  }

  /** Standard normal, by Marsaglia's polar method; the second value of each pair is dropped, for clarity. */
  normal(): number {
    for (;;) {
      const x = 2 * this.uniform() - 1;
      const y = 2 * this.uniform() - 1;
      const square = x * x + y * y;
      if (square > 0 && square < 1) return x * Math.sqrt((-2 * logarithm(square)) / square);
    }
  }
}

/** ln of a number in (0, 1], from exact operations alone: ln(m·2^−k) with m in [1, 2), by the series of artanh. */
export function logarithm(value: number): number {
  let halvings = 0;
  let mantissa = value;
  while (mantissa < 1) {
    mantissa *= 2;
    halvings++;
  }
  const ratio = (mantissa - 1) / (mantissa + 1);
  const square = ratio * ratio;
  let sum = 0;
  // ratio ≤ 1/3: the terms left out are below 3^-43.
  for (let odd = 41; odd >= 1; odd -= 2) sum = sum * square + 1 / odd;
  return 2 * ratio * sum - halvings * Math.LN2;
}
