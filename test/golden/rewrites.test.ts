/** The CPU engine against the double-precision reference on random configurations, with every exact rewrite on and off. */
import fc from 'fast-check';
import { HPformer, type HPformerConfig, Tensor } from '../../src';
import { legalOutputs } from '../../src/model/outputs';
import { type Feeds, rewriteNames } from '../../src/model/types';
import { seed } from '../seed';
import { excess, rmsError } from './fixture';
import { type Draw, draws, feedsOf, randomConfig, sequenceOf } from './random';

const runs = Number(process.env.RUNS ?? 40);

/**
 * A random configuration whose scores stay moderate. Input multiplied by the root of the hidden size and not normalised makes scores of
 * hundreds, and a softmax of float32 scores is off by their size times 2^-24: the bounds of the fixtures are for ordinary ones.
 * test/native/cpu_test.cc has scaled input, with weights as upstream initialises what it scales.
 */
function moderate(draw: Draw, fixed: Partial<HPformerConfig> = {}): HPformerConfig {
  const config = randomConfig(draw, fixed);
  const { positions } = config;
  return positions.kind === 'sinusoidal' ? { ...config, positions: { ...positions, scaleInput: false } } : config;
}

/** A batch with all the feeds that its configuration takes, drawn at random. */
function randomFeeds(config: HPformerConfig, draw: Draw): Feeds {
  const batch = 1 + Math.floor(draw() * 4);
  const valid = config.segments.over === 'valid';
  const shortest = config.segments.rule === 'paper' ? 1 : 2 * config.segments.times + 2;
  const one = (suffix: string): Feeds => {
    const lengths = Array.from({ length: batch }, () => shortest + Math.floor(draw() * 50));
    const steps = Math.max(...lengths) + Math.floor(draw() * 4);
    const sequences = lengths.map((length) => sequenceOf(config, length, draw));
    const feeds = feedsOf(config, sequences, steps, lengths, valid ? 'garbage' : 'zeros');
    if (config.readout === 'step' && draw() < 0.5) {
      const weights = new Float32Array(batch * steps);
      for (let b = 0; b < batch; b++)
        for (let t = 0; t < lengths[b]!; t++) if (draw() < 0.2) weights[b * steps + t] = draw();
      feeds.readoutWeights = new Tensor('float32', weights, [batch, steps]);
    } else if (config.readout === 'step') {
      feeds.step = new Tensor(
        'int32',
        Int32Array.from(lengths, (length) => Math.floor(draw() * length)),
        [batch],
      );
    }
    return Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name + suffix, tensor]));
  };
  return config.sequences === 2 ? { ...one(''), ...one('2') } : one('');
}

/** Worst error of all outputs in units of the float32 bound; rows grow with the sums in them, so the bound is on the largest. */
function worst(got: Record<string, Tensor>, exact: Record<string, Tensor>): { name: string; excess: number } {
  let result = { name: '', excess: 0 };
  for (const [name, tensor] of Object.entries(exact)) {
    const values = tensor.data as Float64Array;
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const bound = name === 'probabilities' ? 1e-5 : 1e-5 * largest;
    const found =
      name === 'segments'
        ? String(values) === String(got[name]!.data)
          ? 0
          : Number.POSITIVE_INFINITY
        : excess(got[name]!.data as Float32Array, values, bound, 1e-5);
    if (found > result.excess) result = { name, excess: found };
  }
  return result;
}

const variants: [string, Partial<Record<(typeof rewriteNames)[number], boolean>>][] = [
  ['all rewrites', {}],
  ...rewriteNames.map((name): [string, Record<string, boolean>] => [`without ${name}`, { [name]: false }]),
  ['no rewrite', Object.fromEntries(rewriteNames.map((name) => [name, false]))],
  ...rewriteNames.map((only): [string, Record<string, boolean>] => [
    `only ${only}`,
    Object.fromEntries(rewriteNames.map((name) => [name, name === only])),
  ]),
];

test(`cpu = reference for every set of rewrites (seed=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(draws(), async (stream) => {
      const draw: Draw = () => stream.next().value as number;
      const config = moderate(
        draw,
        draw() < 0.15 ? { sequences: 2, embedding: { kind: 'tokens', vocabulary: 9, padding: 1 } } : {},
      );
      const feeds = randomFeeds(config, draw);
      const options = { seed: 1 + Math.floor(draw() * 1e6) };
      const outputs = legalOutputs(config);
      const judge = await HPformer.create(config, { ...options, device: 'reference' });
      const exact = (await judge.run(feeds, { outputs })) as Record<string, Tensor>;
      judge.dispose();
      for (const [name, rewrites] of variants) {
        const model = await HPformer.create(config, { ...options, device: 'cpu', rewrites });
        const got = (await model.run(feeds, { outputs })) as Record<string, Tensor>;
        model.dispose();
        const found = worst(got, exact);
        if (!(found.excess <= 1))
          throw new Error(`${name}: ${found.name} is ${found.excess} times its bound: ${JSON.stringify(config)}`);
      }
    }),
    { seed, numRuns: runs },
  );
}, 300000);

test(`bfloat16 stays within its bound (seed=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(draws(), async (stream) => {
      const draw: Draw = () => stream.next().value as number;
      const config = moderate(draw, { hidden: 64, heads: 8, norm: 'layernorm' });
      const feeds = randomFeeds(config, draw);
      const options = { seed: 1 + Math.floor(draw() * 1e6) };
      const judge = await HPformer.create(config, { ...options, device: 'reference' });
      const model = await HPformer.create(config, { ...options, device: 'cpu', precision: 'bfloat16' });
      const exact = (await judge.run(feeds)).logits.data;
      const got = (await model.run(feeds)).logits.data;
      judge.dispose();
      model.dispose();
      const error = rmsError(got, exact);
      if (!(error <= 1e-2)) throw new Error(`RMS error ${error}: ${JSON.stringify(config)}`);
    }),
    { seed, numRuns: runs },
  );
}, 120000);

test(`the same bits for any number of threads (seed=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(draws(), async (stream) => {
      const draw: Draw = () => stream.next().value as number;
      const config = randomConfig(draw);
      const feeds = randomFeeds(config, draw);
      const outputs = legalOutputs(config);
      const results = [];
      for (const threads of [1, 2, 5]) {
        const model = await HPformer.create(config, { seed: 9, device: 'cpu', threads });
        results.push(await model.run(feeds, { outputs }));
        results.push(model.runSync(feeds, { outputs }));
        model.dispose();
      }
      for (const result of results) expect(result).toEqual(results[0]);
    }),
    { seed, numRuns: Math.ceil(runs / 2) },
  );
}, 120000);
