/** Every golden file of the authors' code on a CUDA device: all stages by trace, outputs by run (fused where the width has fused kernels), both precisions. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { devices, type HPformer } from '../../src';
import { type Expectation, excess, fixtureNames, loadFixture, readFixture, rmsError } from '../golden/fixture';
import { describeUnless, withoutCudaLibrary } from '../skips';
import { useCudaLibrary } from './driver';

type Results = Record<string, { data: ArrayLike<number>; dims: readonly number[] }>;

function misses(results: Results, expected: Expectation[], bound: (name: string) => [number, number]): string[] {
  expect(expected.length).toBeGreaterThan(0);
  return expected.flatMap(({ name, values, dims }) => {
    const got = results[name];
    if (got === undefined) return [`${name}: missing`];
    if (got.dims.join() !== dims.join()) return [`${name}: [${got.dims}] instead of [${dims}]`];
    const worst = excess(got.data, values, ...bound(name));
    return worst <= allowed ? [] : [`${name}: ${worst.toPrecision(3)} times its bound`];
  });
}

/** Where the stand-in driver cuts sums like tensor cores do, half of each float32 bound: real ones sum in an order of their own besides. */
const allowed = process.env.GPUSIM_MMA_TRUNCATE === '1' ? 0.5 : 1;

const floatBound = (name: string): [number, number] => (name === 'probabilities' ? [3e-6, 0] : [1e-5, 1e-5]);

const digest = createHash('sha256');
const bytesOf = (results: Results) =>
  Buffer.concat(Object.values(results).map(({ data }) => Buffer.from(Float64Array.from(data).buffer)));

describeUnless(withoutCudaLibrary(), 'fixtures on cuda:0', () => {
  // One model stays loaded: the device and its modules then stay open between the tests.
  let kept: HPformer | undefined;
  beforeAll(async () => {
    await useCudaLibrary();
    kept = await loadFixture(readFixture('lra_L1'), { device: 'cuda:0' });
  });
  afterAll(() => {
    kept?.dispose();
    const { HPFORMER_TEST_DIGEST: file } = process.env; // variants.test.ts compares
    if (file) writeFileSync(file, digest.digest('hex'));
  });

  test('the device is there', () => {
    expect(devices().find(({ id }) => id === 'cuda:0')).toMatchObject({ kind: 'cuda', available: true });
  });

  test.each(fixtureNames())('%s', async (name) => {
    const fixture = readFixture(name);
    const outputs = [...new Set(fixture.exact.map((e) => e.name))];
    const model = await loadFixture(fixture, { device: 'cuda:0' });
    expect(model.device).toBe('cuda:0');
    const trace = (await model.trace(fixture.feeds)) as Results;
    expect(misses(trace, fixture.exact, floatBound)).toEqual([]);
    expect(misses(trace, fixture.stages, () => [2e-5 + 1e-7 * fixture.steps, 0])).toEqual([]);
    const run = await model.run(fixture.feeds, { outputs });
    expect(run.logits!.type).toBe('float32');
    expect(misses(run as Results, fixture.exact, floatBound)).toEqual([]);
    // The third run of a shape replays a CUDA graph.
    await model.run(fixture.feeds, { outputs });
    expect(await model.run(fixture.feeds, { outputs })).toEqual(run);
    model.dispose();

    const half = await loadFixture(fixture, { device: 'cuda:0', precision: 'bfloat16' });
    const { logits } = (await half.run(fixture.feeds, { outputs: ['logits'] })) as Results;
    const exact = fixture.exact.find((e) => e.name === 'logits')!;
    expect(rmsError(logits!.data, exact.values)).toBeLessThanOrEqual(1e-2);
    half.dispose();
    digest.update(bytesOf(run as Results)).update(bytesOf({ logits: logits! }));
  });
});
