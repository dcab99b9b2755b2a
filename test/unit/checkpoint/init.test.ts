import { initialWeights } from '../../../src/checkpoint/init';
import { checkpointKey } from '../../../src/checkpoint/load';
import { parameterShapes } from '../../../src/checkpoint/names';
import { logarithm, Random } from '../../../src/checkpoint/random';
import { type PresetName, presets } from '../../../src/config/presets';
import { validateConfig } from '../../../src/config/validate';
import { errorOf } from './support';

const names = Object.keys(presets) as PresetName[];
const weightsOf = (name: PresetName, seed = 1) => initialWeights(validateConfig(presets[name]()), seed);

function moments(values: ArrayLike<number>): { mean: number; deviation: number; largest: number } {
  const list = Array.from(values);
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  const deviation = Math.sqrt(list.reduce((a, b) => a + (b - mean) ** 2, 0) / list.length);
  return { mean, deviation, largest: list.reduce((a, b) => Math.max(a, Math.abs(b)), 0) };
}

describe('initialWeights', () => {
  test.each(names)('%s: every parameter, in order and shape, float32, finite', (name) => {
    const weights = weightsOf(name);
    expect([...weights].map(([key, { dims }]) => [key, dims])).toEqual([...parameterShapes(presets[name]())]);
    for (const { dims, data } of weights.values()) {
      expect(data).toBeInstanceOf(Float32Array);
      expect(data.length).toBe(dims.reduce((a, b) => a * b, 1));
      expect(data.every(Number.isFinite)).toBe(true);
    }
  });

  test('the same seed gives the same bits, another one others', () => {
    const config = validateConfig(presets.listops({ hidden: 16, layers: 1 }));
    const key = (seed: number) => checkpointKey(config, initialWeights(config, seed));
    expect(key(5)).toBe(key(5));
    expect(new Set([0, 1, 2, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER].map(key)).size).toBe(6);
  });

  test('the bits are these on every platform', () => {
    const small = validateConfig(
      presets.text({ embedding: { vocabulary: 4 }, hidden: 4, heads: 1, layers: 1, head: { layers: [], labels: 1 } }),
    );
    expect(checkpointKey(small, initialWeights(small, 42))).toBe(
      '41e0de5f1a4a8bd5a01a2db722247ea9dddfcdd6ba8b693e6901e77300c55a9d',
    );
  });

  test("health: PyTorch's uniform start, all layers from one template", () => {
    const weights = weightsOf('mortality');
    const bound = 1 / Math.sqrt(76);
    const { mean, deviation, largest } = moments(weights.get('embedding.weight')!.data);
    expect(largest).toBeLessThanOrEqual(Math.fround(bound));
    expect(largest).toBeGreaterThan(0.99 * bound);
    expect(Math.abs(mean)).toBeLessThan(0.03 * bound);
    expect(deviation).toBeCloseTo(bound / Math.sqrt(3), 3);
    expect(moments(weights.get('embedding.bias')!.data).largest).toBeLessThanOrEqual(Math.fround(bound));
    expect(moments(weights.get('tdhp.fusion.weight')!.data).largest).toBeLessThanOrEqual(1 / 16);
    expect(weights.get('layers.3.output.weight')).toEqual(weights.get('layers.0.output.weight'));
    expect(weights.get('layers.0.feedForward.weight')!.data).not.toEqual(weights.get('layers.0.output.weight')!.data);
    expect(new Set(weights.get('layers.0.norm1.weight')!.data)).toEqual(new Set([1]));
    expect(new Set(weights.get('layers.0.norm1.bias')!.data)).toEqual(new Set([0]));
    expect(moments(weights.get('head.output.weight')!.data).deviation).toBeGreaterThan(0);
  });

  test('long-range: normal tables, Xavier head of the mean variant, own layers', () => {
    const weights = weightsOf('text');
    const table = moments(weights.get('embedding.weight')!.data);
    expect(table.deviation).toBeCloseTo(1 / 16, 3);
    expect(table.largest).toBeGreaterThan(3.5 / 16);
    expect(weights.get('layers.1.output.weight')!.data).not.toEqual(weights.get('layers.0.output.weight')!.data);
    const head = moments(weights.get('head.layers.0.weight')!.data);
    expect(head.largest).toBeLessThanOrEqual(Math.fround(Math.sqrt(6 / 512)));
    expect(head.largest).toBeGreaterThan(0.99 * Math.sqrt(6 / 512));
    expect(new Set(weights.get('head.layers.0.bias')!.data)).toEqual(new Set([0]));
  });

  test("pathfinder: PyTorch's head, batch statistics 0 and 1, scalar embedding", () => {
    const weights = weightsOf('pathfinder');
    const bias = moments(weights.get('head.layers.0.bias')!.data);
    expect(bias.largest).toBeGreaterThan(0.8 / Math.sqrt(128));
    expect(bias.largest).toBeLessThanOrEqual(Math.fround(1 / Math.sqrt(128)));
    expect(new Set(weights.get('layers.0.norm1.variance')!.data)).toEqual(new Set([1]));
    expect(new Set(weights.get('layers.0.norm1.mean')!.data)).toEqual(new Set([0]));
    expect(moments(weights.get('embedding.weight')!.data).deviation).toBeGreaterThan(0.75);
    expect(moments(weights.get('embedding.bias')!.data).deviation).toBeLessThan(0.13);
  });

  test("a learned table's padding row is zero", () => {
    const config = validateConfig(presets.listops({ positions: { kind: 'learned', maximum: 10 }, hidden: 16 }));
    const { dims, data } = initialWeights(config, 1).get('positions.weight')!;
    expect(dims).toEqual([12, 16]);
    expect(new Set(data.subarray(16, 32))).toEqual(new Set([0]));
    expect(data.subarray(32, 48).every((value) => value !== 0)).toBe(true);
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 53, '1' as unknown as number])('a seed of %p is refused', (seed) => {
    expect(errorOf(() => weightsOf('listops', seed)).code).toBe('ERR_HPFORMER_RANGE');
  });

  test('weights that no memory holds are an error', () => {
    const config = validateConfig(presets.listops({ embedding: { vocabulary: 2 ** 31 - 2 }, hidden: 65536, heads: 1 }));
    expect(errorOf(() => initialWeights(config, 1)).code).toBe('ERR_HPFORMER_MEMORY');
  });
});

describe('Random', () => {
  test('is xoshiro128** after its seeding', () => {
    // The published step, written in arithmetic modulo 2^32 instead of typed arrays.
    const random = new Random(3, 'x');
    const copy = (random as unknown as { state: Uint32Array }).state;
    let s = Array.from(copy, BigInt);
    const mask = 0xffffffffn;
    const rotate = (value: bigint, by: bigint) => ((value << by) | (value >> (32n - by))) & mask;
    for (let i = 0; i < 100; i++) {
      const expected = (rotate((s[1]! * 5n) & mask, 7n) * 9n) & mask;
      const t = (s[1]! << 9n) & mask;
      let [a, b, c, d] = s as [bigint, bigint, bigint, bigint];
      c ^= a;
      d ^= b;
      b ^= c;
      a ^= d;
      c ^= t;
      s = [a, b, c, rotate(d, 11n)];
      expect(random.next()).toBe(Number(expected));
    }
  });

  test('is uniform and normal as it says', () => {
    const random = new Random(1, 'moments');
    const uniform = Array.from({ length: 50_000 }, () => random.uniform());
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    const flat = moments(uniform);
    expect(flat.mean).toBeCloseTo(0.5, 2);
    expect(flat.deviation).toBeCloseTo(Math.sqrt(1 / 12), 2);
    const bell = Array.from({ length: 50_000 }, () => random.normal());
    const { mean, deviation } = moments(bell);
    expect(Math.abs(mean)).toBeLessThan(0.02);
    expect(Math.abs(deviation - 1)).toBeLessThan(0.02);
    const within = bell.filter((value) => Math.abs(value) < 1).length / bell.length;
    expect(Math.abs(within - 0.6827)).toBeLessThan(0.01);
  });

  test('its logarithm is the logarithm', () => {
    for (const value of [1, 0.999999, 0.75, 0.5, 0.3, 1e-3, 1e-9, 2 ** -53, 1e-300, Number.MIN_VALUE]) {
      expect(Math.abs(logarithm(value) - Math.log(value))).toBeLessThanOrEqual(
        1e-15 * Math.max(1, Math.abs(Math.log(value))),
      );
    }
  });
});
