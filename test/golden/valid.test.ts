/**
 * `segments.over: 'valid'` (design section 2): a sequence has the same bits alone, in any batch, at any position, under any
 * padding, and they are what 'padded' gives for it alone, cut to its own length.
 */
import fc from 'fast-check';
import { HPformer, type HPformerConfig, presets, Tensor } from '../../src';
import type { Feeds } from '../../src/model/types';
import { seed } from '../seed';
import { type Draw, draws, feedsOf, randomConfig, sequenceOf } from './random';

const runs = Number(process.env.RUNS ?? 25);

const withOver = (config: HPformerConfig, over: 'padded' | 'valid', steps = config.segments.steps): HPformerConfig => ({
  ...config,
  segments: { ...config.segments, over, steps },
});

/** Outputs that hold one row per sequence, and those with one row per step of it. */
function perStep(config: HPformerConfig): string[] {
  return config.readout === 'steps' ? ['logits', 'probabilities', 'intraAttention'] : ['intraAttention'];
}

/** The bits of sequence b in an output, cut to its length. */
function bitsOf(
  config: HPformerConfig,
  name: string,
  tensor: Tensor,
  b: number,
  length: number,
  count: number,
): string {
  const rest = tensor.dims.slice(1);
  const size = rest.reduce((x, y) => x * y, 1);
  let row = (tensor.data as Float32Array).slice(b * size, (b + 1) * size);
  if (perStep(config).includes(name)) row = row.slice(0, (size / rest[0]!) * length);
  if (name === 'keys') row = row.slice(0, count * config.hidden);
  return Buffer.from(row.buffer, row.byteOffset, row.byteLength).toString('hex');
}

describe.each(['cpu', 'reference'] as const)('%s', (device) => {
  test.each(['float32', 'bfloat16'] as const)(
    `%s: the same bits anywhere, and those of 'padded' alone (seed=${seed})`,
    async (precision) => {
      await fc.assert(
        fc.asyncProperty(draws(), async (stream) => {
          const draw: Draw = () => stream.next().value as number;
          const base = randomConfig(draw, { sequences: 1 });
          const config = withOver(base, 'valid', null);
          const options = { seed: 1 + Math.floor(draw() * 1e6), device, precision };
          const model = await HPformer.create(config, options);
          const alone = await HPformer.create(withOver(config, 'padded'), options);
          const outputs = [
            'logits',
            ...(config.head.link === 'none' ? [] : ['probabilities']),
            'keys',
            'segments',
            'intraAttention',
          ];

          const shortest = config.segments.rule === 'paper' ? 1 : 2 * config.segments.times + 2;
          const lengths = Array.from({ length: 1 + Math.floor(draw() * 5) }, () => shortest + Math.floor(draw() * 40));
          const sequences = lengths.map((length) => sequenceOf(config, length, draw));
          const steps = Math.max(...lengths) + Math.floor(draw() * 9);
          const order = lengths.map((_, i) => i).sort(() => draw() - 0.5);
          const batch = feedsOf(
            config,
            order.map((i) => sequences[i]!),
            steps,
            order.map((i) => lengths[i]!),
            'garbage',
          );
          const together = await model.run(batch, { outputs });
          for (const [b, i] of order.entries()) {
            const feeds = feedsOf(config, [sequences[i]!], lengths[i]!, [lengths[i]!], 'none');
            const own = await model.run(feeds, { outputs });
            const padded = await alone.run(feeds, { outputs });
            const count = own.segments!.data[0]!;
            expect(together.segments!.data[b]).toBe(count);
            for (const name of outputs) {
              if (name === 'segments') continue;
              const bits = bitsOf(config, name, own[name]!, 0, lengths[i]!, count);
              expect(`${name} ${bitsOf(config, name, together[name]!, b, lengths[i]!, count)}`).toBe(`${name} ${bits}`);
              expect(`${name} ${bitsOf(config, name, padded[name]!, 0, lengths[i]!, count)}`).toBe(`${name} ${bits}`);
            }
            checkZeroBeyond(config, together as Record<string, Tensor>, b, lengths[i]!, steps, count);
          }
          model.dispose();
          alone.dispose();
        }),
        { seed, numRuns: runs },
      );
    },
  );
});

/** Outputs beyond a sequence's length, and keys beyond its segments, are 0. */
function checkZeroBeyond(
  config: HPformerConfig,
  results: Record<string, Tensor>,
  b: number,
  length: number,
  steps: number,
  count: number,
): void {
  const row = (tensor: Tensor) => {
    const size = tensor.dims.slice(1).reduce((x, y) => x * y, 1);
    return (tensor.data as Float32Array).subarray(b * size, (b + 1) * size);
  };
  const intra = row(results.intraAttention!).subarray(length);
  expect(intra.every((value) => value === 0)).toBe(true);
  expect(
    row(results.keys!)
      .subarray(count * config.hidden)
      .every((value) => value === 0),
  ).toBe(true);
  if (config.readout !== 'steps') return;
  for (const name of ['logits', 'probabilities']) {
    const tensor = results[name];
    if (tensor === undefined) continue;
    const width = tensor.dims[2]!;
    expect(
      row(tensor)
        .subarray(length * width, steps * width)
        .every((value) => value === 0),
    ).toBe(true);
  }
}

const small = presets.mortality({ embedding: { kind: 'features', size: 5 }, hidden: 16, layers: 2 });

test('a fixed T that does not divide the length: padded by the rule; shorter than n0: one step each', async () => {
  const config = withOver(small, 'valid', 48);
  for (const device of ['reference', 'cpu'] as const) {
    const model = await HPformer.create(config, { seed: 3, device });
    const features = new Tensor(
      'float32',
      new Float32Array(3 * 48 * 5).map((_, i) => Math.sin(i)),
      [3, 48, 5],
    );
    const lengths = new Tensor('int32', Int32Array.of(48, 21, 3), [3]);
    const { segments } = await model.run({ features, lengths }, { outputs: ['segments'] });
    // n0 = 4: 48 = 4·12; 21 = 4·5 + 1 gives 5 segments of 5; 3 < 4 gives 3 of 1.
    expect([...segments.data]).toEqual([4, 5, 3]);
    model.dispose();
  }
});

test('NaN in padding is never read, NaN in a real row stays in its sequence', async () => {
  for (const device of ['reference', 'cpu'] as const) {
    const model = await HPformer.create(withOver(small, 'valid', 48), { seed: 3, device });
    const data = new Float32Array(3 * 48 * 5).map((_, i) => Math.cos(i));
    const lengths = new Tensor('int32', Int32Array.of(20, 48, 30), [3]);
    const run = (values: Float32Array) =>
      model.run({ features: new Tensor('float32', values, [3, 48, 5]), lengths } as Feeds);
    const clean = await run(data);
    data.fill(Number.NaN, 20 * 5, 48 * 5);
    expect((await run(data)).logits.data).toEqual(clean.logits.data);
    data[(2 * 48 + 7) * 5 + 1] = Number.NaN;
    const dirty = (await run(data)).logits.data;
    expect([dirty[0], dirty[1], dirty[2]]).toEqual([clean.logits.data[0], clean.logits.data[1], Number.NaN]);
    model.dispose();
  }
});
