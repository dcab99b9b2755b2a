/** What a model decides: the float32 answer is the float64 reference's, on 10,000 random inputs. */
import { type Feeds, HPformer, type HPformerConfig, presets, Tensor } from '../../src';
import { initialWeights } from '../../src/checkpoint/init';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { seed } from '../seed';

const batch = 250;
/** The bound of the plan (anchors: whole model): below it a tie may fall either way. */
const margin = 1e-4;

/** Random numbers below 1 (mulberry32), the same for a seed. */
function random(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const kinds: [name: string, config: HPformerConfig, steps: number, count: number][] = [
  [
    'features, one step, 10 labels',
    presets.mortality({
      embedding: { size: 12 },
      hidden: 32,
      heads: 4,
      layers: 3,
      segments: { steps: 24 },
      head: { labels: 10, link: 'softmax' },
    }),
    24,
    5000,
  ],
  ['tokens, mean, 10 labels', presets.listops({ hidden: 32, heads: 2, layers: 2, head: { bias: true } }), 40, 3000],
  ['values, mean, 10 labels', presets.image({ hidden: 24, heads: 2, layers: 2, head: { bias: true } }), 36, 2000],
];

/** The largest of each row, and how far it is ahead of the next. */
function decisions(logits: ArrayLike<number>, labels: number): { label: number; ahead: number }[] {
  return Array.from({ length: logits.length / labels }, (_, row) => {
    let label = 0;
    let [first, second] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let i = 0; i < labels; i++) {
      const value = logits[row * labels + i]!;
      if (value > first) [label, second, first] = [i, first, value];
      else if (value > second) second = value;
    }
    return { label, ahead: first - second };
  });
}

/** `batch` random inputs of a model. */
function randomFeeds({ embedding }: HPformerConfig, steps: number, draw: () => number): Feeds {
  const shape = embedding.kind === 'features' ? [batch, steps, embedding.size] : [batch, steps];
  const length = shape.reduce((a, b) => a * b);
  if (embedding.kind === 'tokens') {
    const ids = Int32Array.from({ length }, () => 2 + Math.floor(draw() * (embedding.vocabulary - 2)));
    return { tokens: new Tensor('int32', ids, shape) };
  }
  const values = new Tensor(
    'float32',
    Float32Array.from({ length }, () => 6 * draw() - 3),
    shape,
  );
  return embedding.kind === 'features' ? { features: values } : { values };
}

/**
 * A checkpoint of random weights whose labels compete. Inputs move the logits of random weights less than one label's mean lies
 * from the next's, and one model in eleven always says the same; the head's bias takes the means of a first batch away.
 */
async function competing(config: HPformerConfig, steps: number, draw: () => number): Promise<Uint8Array> {
  const weights = initialWeights(config, seed);
  const { labels } = config.head;
  const model = await HPformer.load(serializeCheckpoint(config, weights), { device: 'reference' });
  const { logits } = await model.run(randomFeeds(config, steps, draw), { outputs: ['logits'] });
  model.dispose();
  const bias = weights.get('head.output.bias')!.data;
  for (const [i, value] of (logits.data as Float64Array).entries()) bias[i % labels]! -= value / batch;
  return serializeCheckpoint(config, weights);
}

test.each(kinds)(
  `%s (seed=${seed}): the same label wherever it is ahead by more than ${margin}`,
  async (name, config, steps, count) => {
    const draw = random(seed);
    const { labels } = config.head;
    const checkpoint = await competing(config, steps, draw);
    const [cpu, reference] = await Promise.all(
      (['cpu', 'reference'] as const).map((device) => HPformer.load(checkpoint, { device })),
    );
    const seen = new Set<number>();
    let judged = 0;
    let other = 0;
    let worst = 0;
    for (let at = 0; at < count; at += batch) {
      const feeds = randomFeeds(config, steps, draw);
      const [narrow, wide] = await Promise.all([cpu!.run(feeds), reference!.run(feeds)]);
      const [got, want] = [narrow, wide].map(({ logits }) => decisions(logits.data as ArrayLike<number>, labels));
      for (const [i, { label, ahead }] of want!.entries()) {
        seen.add(label);
        if (ahead <= margin) continue;
        judged++;
        if (got![i]!.label !== label) other++;
      }
      const [p, q] = [narrow, wide].map(({ probabilities }) => probabilities.data as ArrayLike<number>);
      for (let i = 0; i < p!.length; i++) worst = Math.max(worst, Math.abs(p![i]! - q![i]!));
    }
    cpu!.dispose();
    reference!.dispose();
    process.stdout.write(
      `argmax, ${name}: ${judged} of ${count} judged, ${other} differ, probabilities within ${worst.toExponential(1)} (seed=${seed})\n`,
    );
    expect(other).toBe(0);
    expect(worst).toBeLessThan(5e-6);
    // Decisions, not one label over and over, and few ties.
    expect(judged).toBeGreaterThan(0.9 * count);
    expect(seen.size).toBeGreaterThan(5);
  },
);

test('10,000 in all', () => {
  expect(kinds.reduce((sum, [, , , count]) => sum + count, 0)).toBe(10000);
});
