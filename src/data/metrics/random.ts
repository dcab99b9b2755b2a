import { Xoshiro128 } from '../../random';

/** A small seeded generator for resampling and made-up data; its state is filled by splitmix32. */
export class SeededRandom extends Xoshiro128 {
  /** @param seed any integer; its low 32 bits count. */
  constructor(seed: number) {
    super();
    let x = seed >>> 0;
    for (let i = 0; i < 4; i++) {
      x = (x + 0x9e3779b9) >>> 0;
      let z = x;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      this.state[i] = (z ^ (z >>> 16)) >>> 0;
    }
  }

  /** An integer in [0, n). The bias is below n / 2³², nothing for the sample sizes used here. */
  below(n: number): number {
    return Math.floor((this.next() / 4294967296) * n);
  }
}
