/** The same input gives the same bits: again, on any number of threads, at any place of any batch, among any neighbours. */
import fc from 'fast-check';
import { type Feeds, HPformer, type HPformerConfig, presets, Tensor } from '../../src';
import { seed } from '../seed';
import { bits } from '../session/models';

const repeats = Number(process.env.REPEATS ?? 100);

/** One sequence of a model by its own number: `steps` values that depend on nothing else. */
interface Kind {
  name: string;
  config: HPformerConfig;
  steps: number;
  feed(ids: number[], steps: number): Feeds;
}

const real = (width: number) => (ids: number[], steps: number) => {
  const data = ids.flatMap((id) => Array.from({ length: steps * width }, (_, i) => Math.sin(i * 0.37 + id * 1.7)));
  return new Tensor('float32', Float32Array.from(data), width === 1 ? [ids.length, steps] : [ids.length, steps, width]);
};
const ids = (numbers: number[], steps: number) => {
  const data = numbers.flatMap((id) => Array.from({ length: steps }, (_, i) => 2 + ((i * 7 + id * 13) % 20)));
  return new Tensor('int32', Int32Array.from(data), [numbers.length, steps]);
};

const kinds: Kind[] = [
  {
    name: 'one step of features',
    config: presets.mortality({ embedding: { size: 6 }, hidden: 24, heads: 4, layers: 2 }),
    steps: 48,
    feed: (n, steps) => ({ features: real(6)(n, steps) }),
  },
  {
    name: 'every step of features, valid lengths',
    config: presets.decompensation({
      embedding: { size: 5 },
      hidden: 20,
      heads: 4,
      layers: 2,
      segments: { over: 'valid', steps: null },
    }),
    steps: 37,
    feed: (n, steps) => ({
      features: real(5)(n, steps),
      lengths: new Tensor(
        'int32',
        Int32Array.from(n, (id) => 5 + (id % 30)),
        [n.length],
      ),
    }),
  },
  {
    name: 'mean over tokens',
    config: presets.listops({ hidden: 16, heads: 2, layers: 2 }),
    steps: 61,
    feed: (n, steps) => ({ tokens: ids(n, steps) }),
  },
  {
    name: 'two sequences of tokens',
    config: presets.retrieval({ hidden: 16, heads: 2, layers: 1, embedding: { vocabulary: 30 } }),
    steps: 40,
    feed: (n, steps) => ({
      tokens: ids(n, steps),
      tokens2: ids(
        n.map((id) => id + 3),
        steps,
      ),
    }),
  },
];

describe.each(kinds)('$name', ({ config, steps, feed }) => {
  const models = new Map<number, HPformer>();
  let alone: (id: number) => string;

  beforeAll(async () => {
    for (const threads of [1, 2, 3, 4])
      models.set(threads, await HPformer.create(config, { device: 'cpu', seed: 2, threads }));
    const known = new Map<number, string>();
    alone = (id) => {
      if (!known.has(id)) known.set(id, bits(models.get(1)!.runSync(feed([id], steps)).logits));
      return known.get(id)!;
    };
  });
  afterAll(() => {
    for (const model of models.values()) model.dispose();
  });

  /** The bits of each sequence of a batch. */
  const split = (logits: { data: { byteLength: number } } & Parameters<typeof bits>[0], count: number): string[] => {
    const all = bits(logits);
    const each = all.length / count;
    return Array.from({ length: count }, (_, i) => all.slice(i * each, (i + 1) * each));
  };

  test(`${repeats} repeats, run and runSync`, async () => {
    const batch = feed([1, 2, 3], steps);
    const expected = bits(models.get(2)!.runSync(batch).logits);
    for (let i = 0; i < repeats; i++) expect(bits((await models.get(2)!.run(batch)).logits)).toBe(expected);
  });

  test(`any batch, place, neighbours and threads (seed=${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 33 }),
        fc.constantFrom(1, 2, 3, 4),
        async (batch, threads) => {
          const { logits } = await models.get(threads)!.run(feed(batch, steps));
          expect(split(logits, batch.length)).toEqual(batch.map(alone));
        },
      ),
      { seed, numRuns: 12 },
    );
  });

  // Sizes around the tiles of every level, and one more than 256; each at two numbers of threads, the largest at four.
  const sizes = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257];
  test('batches of 1 to 257 on 1 to 16 threads: the bits of each sequence alone, at every place', async () => {
    const wide = new Map<number, HPformer>();
    for (let threads = 1; threads <= 16; threads++)
      wide.set(threads, await HPformer.create(config, { device: 'cpu', seed: 2, threads }));
    const used = new Set<number>();
    for (const [i, size] of sizes.entries()) {
      const some = [1 + (i % 16), 1 + ((i * 7 + 5) % 16)];
      for (const threads of size === 257 ? [...some, 1, 16] : some) {
        used.add(threads);
        const batch = Array.from({ length: size }, (_, place) => (place * 5 + threads) % 41);
        const { logits } = await wide.get(threads)!.run(feed(batch, steps));
        expect(split(logits, size)).toEqual(batch.map(alone));
      }
    }
    expect(used.size).toBe(16);
    for (const model of wide.values()) model.dispose();
  });

  test('runs at once, and streams of any concurrency', async () => {
    const batches = Array.from({ length: 16 }, (_, i) => Array.from({ length: 1 + (i % 9) }, (_, j) => i + j));
    const results = await Promise.all(batches.map((batch, i) => models.get(1 + (i % 4))!.run(feed(batch, steps))));
    for (const [i, { logits }] of results.entries()) {
      expect(split(logits, batches[i]!.length)).toEqual(batches[i]!.map(alone));
    }
    for (const concurrency of [1, 3, 16]) {
      let at = 0;
      const source = batches.map((batch) => feed(batch, steps));
      for await (const { logits } of models.get(2)!.stream(source, { concurrency })) {
        expect(split(logits, batches[at]!.length)).toEqual(batches[at++]!.map(alone));
      }
      expect(at).toBe(batches.length);
    }
  });
});

test('what lies beyond a valid length is never read', async () => {
  const { config, steps, feed } = kinds[1]!;
  const model = await HPformer.create(config, { device: 'cpu', seed: 2, threads: 3 });
  const batch = feed([3, 4], steps);
  const expected = bits(model.runSync(batch).logits);
  const data = (batch.features as Tensor<'float32'>).data;
  for (let b = 0; b < 2; b++) data.fill(Number.NaN, (b * steps + 8 + b) * 5, (b + 1) * steps * 5);
  expect(bits(model.runSync(batch).logits)).toBe(expected);
  model.dispose();
});

test('token ids beyond a valid length are neither checked nor used as an index', async () => {
  const config = presets.listops({ hidden: 16, heads: 2, layers: 1, segments: { over: 'valid' } });
  for (const device of ['cpu', 'reference'] as const) {
    const model = await HPformer.create(config, { device, seed: 1 });
    const run = (beyond: number) => {
      const tokens = Int32Array.from({ length: 30 }, (_, i) => (i < 20 ? 2 + i : beyond));
      return bits(model.runSync({ tokens, lengths: Int32Array.of(20) }).logits);
    };
    const expected = run(2);
    for (const beyond of [-1, 25, 2 ** 31 - 1, -(2 ** 31)]) expect(run(beyond)).toBe(expected);
    model.dispose();
  }
});
