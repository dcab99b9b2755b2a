/** Every golden file of the authors' code, on every backend that runs here: all stages by trace, final outputs by run. */
import { join } from 'node:path';
import { HPformer } from '../../src';
import { rewriteNames } from '../../src/model/types';
import {
  type Expectation,
  excess,
  type Fixture,
  fixtureNames,
  folder,
  loadFixture,
  readFixture,
  rmsError,
} from './fixture';

const names = fixtureNames();

test('the golden files are all here', () => {
  expect(names).toHaveLength(26);
  expect(names.filter((name) => name.startsWith('ckpt_'))).toHaveLength(2);
});

type Results = Record<string, { data: ArrayLike<number>; dims: readonly number[] }>;

/** Names of what is out of its bound, with by how much: an empty list is a pass that says something when it fails. */
function misses(results: Results, expected: Expectation[], bound: (name: string) => [number, number]): string[] {
  expect(expected.length).toBeGreaterThan(0);
  return expected.flatMap(({ name, values, dims }) => {
    const got = results[name];
    if (got === undefined) return [`${name}: missing`];
    if (got.dims.join() !== dims.join()) return [`${name}: [${got.dims}] instead of [${dims}]`];
    const [absolute, relative] = bound(name);
    const worst = excess(got.data, values, absolute, relative);
    return worst <= 1 ? [] : [`${name}: ${worst.toPrecision(3)} times its bound`];
  });
}

// Bounds: README of the fixtures, Tolerance.
const exactBound = (): [number, number] => [1e-9, 0];
const floatBound = (name: string): [number, number] => (name === 'probabilities' ? [3e-6, 0] : [1e-5, 1e-5]);
const stageBound = (fixture: Fixture) => (): [number, number] => [2e-5 + 1e-7 * fixture.steps, 0];

/** The outputs of `run` that have a float64 twin. */
const askedFor = (fixture: Fixture) => [...new Set(fixture.exact.map(({ name }) => name))];

describe.each(names)('%s', (name) => {
  const fixture = readFixture(name);

  test('reference: stages and outputs', async () => {
    const model = await loadFixture(fixture, { device: 'reference' });
    const trace = (await model.trace(fixture.feeds)) as Results;
    expect(misses(trace, fixture.exact, exactBound)).toEqual([]);
    expect(misses(trace, fixture.stages, stageBound(fixture))).toEqual([]);
    const run = await model.run(fixture.feeds, { outputs: askedFor(fixture) });
    expect(Object.keys(run).sort()).toEqual(askedFor(fixture).sort());
    expect(run.logits!.type).toBe('float64');
    expect(misses(run as Results, fixture.exact, exactBound)).toEqual([]);
    model.dispose();
  });

  test('cpu, float32: stages and outputs', async () => {
    const model = await loadFixture(fixture, { device: 'cpu' });
    const trace = (await model.trace(fixture.feeds)) as Results;
    expect(misses(trace, fixture.exact, floatBound)).toEqual([]);
    expect(misses(trace, fixture.stages, stageBound(fixture))).toEqual([]);
    const run = await model.run(fixture.feeds, { outputs: askedFor(fixture) });
    expect(run.logits!.type).toBe('float32');
    expect(misses(run as Results, fixture.exact, floatBound)).toEqual([]);
    const sync = model.runSync(fixture.feeds, { outputs: askedFor(fixture) });
    expect(sync).toEqual(run);
    model.dispose();
  });

  test('cpu, float32: without any rewrite', async () => {
    const rewrites = Object.fromEntries(rewriteNames.map((rewrite) => [rewrite, false]));
    const model = await loadFixture(fixture, { device: 'cpu', rewrites });
    const run = await model.run(fixture.feeds, { outputs: askedFor(fixture) });
    expect(misses(run as Results, fixture.exact, floatBound)).toEqual([]);
    model.dispose();
  });

  test('cpu, bfloat16: logits', async () => {
    const model = await loadFixture(fixture, { device: 'cpu', precision: 'bfloat16' });
    const run = await model.run(fixture.feeds);
    expect(run.logits.type).toBe('float32');
    const exact = fixture.exact.find((e) => e.name === 'logits')!;
    expect(rmsError(run.logits.data, exact.values)).toBeLessThanOrEqual(1e-2);
    model.dispose();
  });

  const oneHot = fixture.config.readout === 'step' && isOneHot(fixture);
  if (oneHot) {
    test('cpu: the step itself instead of one-hot weights', async () => {
      const model = await loadFixture(fixture, { device: 'cpu' });
      const { features, readoutWeights } = fixture.feeds as unknown as {
        features: never;
        readoutWeights: { data: Float32Array };
      };
      const step = new Int32Array(fixture.batch);
      for (let b = 0; b < fixture.batch; b++) {
        step[b] = readoutWeights.data.subarray(b * fixture.steps, (b + 1) * fixture.steps).indexOf(1);
      }
      const run = await model.run(
        { features, step: { type: 'int32', data: step, dims: [fixture.batch] } },
        { outputs: askedFor(fixture) },
      );
      expect(misses(run as Results, fixture.exact, floatBound)).toEqual([]);
      model.dispose();
    });
  }

  const files = Object.entries(fixture.checkpoints);
  if (files.length > 0) {
    test.each(files)('checkpoint %s (%s)', async (file) => {
      for (const device of ['reference', 'cpu'] as const) {
        const model = await HPformer.load(join(folder, file), { config: fixture.config, device });
        const run = await model.run(fixture.feeds, { outputs: askedFor(fixture) });
        expect(misses(run as Results, fixture.exact, device === 'cpu' ? floatBound : exactBound)).toEqual([]);
        model.dispose();
      }
    });
  }
});

function isOneHot(fixture: Fixture): boolean {
  const weights = (fixture.feeds.readoutWeights as { data: Float32Array }).data;
  for (let b = 0; b < fixture.batch; b++) {
    const row = weights.subarray(b * fixture.steps, (b + 1) * fixture.steps);
    if (row.filter((w) => w === 1).length !== 1 || row.some((w) => w !== 0 && w !== 1)) return false;
  }
  return true;
}
