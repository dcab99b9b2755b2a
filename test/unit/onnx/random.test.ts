/** Random models of every kind: the graph that is written says what the float64 reference computes, in every form and readout. */
import fc from 'fast-check';
import { HPformer, Tensor } from '../../../src';
import { initialWeights } from '../../../src/checkpoint/init';
import { exportOnnx, type OnnxOptions, onnxVariants } from '../../../src/checkpoint/onnx';
import { draws, feedsOf, randomConfig, sequenceOf } from '../../golden/random';
import { seed } from '../../seed';
import { decode, run, type Value } from './interpreter';

const runs = Number(process.env.MODELS ?? 60);

const plain = (tensor: unknown): Value => {
  const { dims, data } = tensor as Tensor;
  return { dims: [...dims], data: Float64Array.from(data as Float32Array) };
};

test(`logits and probabilities of ${runs} models, seed=${seed}`, async () => {
  const used = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      draws(),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom(...onnxVariants.filter((variant) => !variant.endsWith('8'))),
      fc.boolean(),
      fc.constantFrom('input', 'last', 'weights'),
      async (stream, more, batch, variant, dynamic, step) => {
        const draw = () => stream.next().value;
        const config = randomConfig(draw);
        const steps = (config.segments.rule === 'paper' ? 1 : 2 * config.segments.times + 2) + more;
        const weights = initialWeights(config, 1);
        const model = await HPformer.create(config, { device: 'reference', seed: 1 });
        const sequences = Array.from({ length: batch }, () => sequenceOf(config, steps, draw));
        const full = Array.from({ length: batch }, () => steps);
        const feeds = feedsOf(config, sequences, steps, config.readout === 'mean' ? full : undefined, 'none');
        const inputs: Record<string, Value> = Object.fromEntries(
          Object.entries(feeds).map(([name, tensor]) => [name, plain(tensor)]),
        );
        const options: OnnxOptions = {
          variant,
          ...(dynamic ? { steps: 'dynamic', maximumSteps: steps + 2 } : { steps }),
          ...(config.readout === 'mean' ? { lengths: 'input' } : {}),
        };
        if (config.readout === 'step') {
          options.step = step;
          const read = Int32Array.from(full, () => (step === 'last' ? steps - 1 : Math.floor(draw() * steps)));
          feeds.step = new Tensor('int32', read, [batch]);
          if (step === 'input') inputs.step = plain(feeds.step);
          if (step === 'weights') {
            inputs.readoutWeights = { dims: [batch, steps], data: new Float64Array(batch * steps) };
            for (const [b, at] of read.entries()) inputs.readoutWeights.data[b * steps + at] = 1;
          }
        }
        const { logits, probabilities } = await model.run(feeds);
        model.dispose();
        const named = Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));
        const graph = decode(exportOnnx(config, named, options));
        expect(graph.inputs.sort()).toEqual(Object.keys(inputs).sort());
        const got = run(graph, inputs);
        const scale = Math.max(1, ...Array.from(logits.data as Float32Array, Math.abs));
        const where = JSON.stringify({ config, options, steps, batch });
        const near = (value: Value, expected: Tensor, bound: number) => {
          expect(value.dims).toEqual([...expected.dims]);
          // Double arithmetic over tables and constants of float32.
          const worst = Math.max(...value.data.map((x, i) => Math.abs(x - Number(expected.data[i]))));
          if (!(worst < bound)) throw new Error(`off by ${worst} where ${bound} is allowed: ${where}`);
        };
        near(got.logits!, logits as Tensor, 2e-5 * scale);
        if (config.head.link === 'none') expect(got.probabilities).toBeUndefined();
        else near(got.probabilities!, probabilities as Tensor, 2e-5 * scale);
        const { activation, norm, readout, positions, head } = config;
        const parts = { activation, norm, readout, positions: positions.kind, link: head.link };
        for (const [name, value] of Object.entries(parts)) used.add(`${name} ${value}`);
      },
    ),
    { seed, numRuns: runs },
  );
  // Nothing of what a graph is made of was left out by chance.
  if (runs >= 60) expect(used.size).toBe(5 + 4 + 3 + 3 + 3);
}, 120000);

test('sizes of dynamic graphs are computed, those of fixed ones are numbers', () => {
  const config = randomConfig(() => 0.5, { readout: 'mean', sequences: 1 });
  const weights = Object.fromEntries([...initialWeights(config, 1)].map(([name, { data }]) => [name, data]));
  const fixed = decode(exportOnnx(config, weights, { steps: 9 }));
  const dynamic = decode(exportOnnx(config, weights, { steps: 'dynamic', maximumSteps: 9 }));
  expect(fixed.nodes.filter(({ type }) => type === 'Shape')).toEqual([]);
  expect(dynamic.nodes.filter(({ type }) => type === 'Shape').length).toBeGreaterThan(0);
});
