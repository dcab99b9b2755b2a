/**
 * The generator xoshiro128** (Blackman and Vigna, 2018) in 32-bit integer arithmetic: the same numbers on every platform and in
 * every version of Node. How a seed becomes its state is the subclass's matter. Not for secrets.
 */
export class Xoshiro128 {
  protected readonly state = new Uint32Array(4);

  /** The next 32 random bits as an integer in [0, 2³²). */
  next(): number {
    const s = this.state;
    const product = Math.imul(s[1]!, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= shifted;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result;
  }
}
