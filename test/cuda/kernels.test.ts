/** `kernels.*` on a CUDA device against the double-precision reference: single steps, fused stages, their fallbacks, refusals, timing. */
import { HPformer, kernels, presets, Tensor } from '../../src';
import { initialWeights } from '../../src/checkpoint/init';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { timeOnDevice } from '../../src/model/kernels';
import { excess } from '../golden/fixture';
import { seed } from '../seed';
import { describeUnless, withoutCudaLibrary } from '../skips';
import { useCudaLibrary } from './driver';

type Name = keyof typeof kernels;
type Pair = readonly [Tensor, Tensor];

let state = seed || 1;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
};

/** The same numbers in both types. */
function both(dims: number[], low = -1): Pair {
  const count = dims.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: count }, () => low + (1 - low) * (random() / 2 + 0.5));
  return [new Tensor('float32', data, dims), new Tensor('float64', Float64Array.from(data), dims)];
}

const device = 'cuda:0';

function compare(
  name: Name,
  inputs: Record<string, Pair | Tensor>,
  options: Record<string, string | number | boolean>,
) {
  const pick = (i: 0 | 1) =>
    Object.fromEntries(Object.entries(inputs).map(([key, pair]) => [key, pair instanceof Tensor ? pair : pair[i]]));
  const got = kernels[name](pick(0) as never, { ...options, device });
  const expected = kernels[name](pick(1) as never, options);
  expect(Object.keys(got)).toEqual(Object.keys(expected));
  for (const key of Object.keys(expected)) {
    expect(got[key]!.type).toBe('float32');
    const worst = excess(got[key]!.data as Float32Array, expected[key]!.data as Float64Array, 2e-5, 2e-5);
    expect({ name, key, options, seed, within: worst <= 1 }).toEqual({ name, key, options, seed, within: true });
  }
}

const normParts = (norm: string, prefix: string, d: number) => {
  const named = (part: string) => (prefix === '' ? part.toLowerCase() : prefix + part);
  const parts: Record<string, Pair> = { [named('Weight')]: both([norm === 'scalenorm' ? 1 : d], 0.5) };
  if (norm === 'layernorm' || norm === 'batchnorm') parts[named('Bias')] = both([d]);
  if (norm === 'batchnorm') Object.assign(parts, { [named('Mean')]: both([d]), [named('Variance')]: both([d], 0.5) });
  return parts;
};

describeUnless(withoutCudaLibrary(), `kernels.* on cuda:0 (seed=${seed})`, () => {
  let kept: HPformer | undefined; // keeps the device open between calls
  beforeAll(async () => {
    await useCudaLibrary();
    const config = presets.mortality({ hidden: 16, layers: 1 });
    kept = await HPformer.load(serializeCheckpoint(config, initialWeights(config, 1)), { device });
  });
  afterAll(() => kept?.dispose());

  // Batch, steps, hidden, heads, segments, length: an odd width (single steps only), a fused one, zero rows and a zero segment.
  test.each([
    [1, 1, 1, 1, 1, 1],
    [2, 7, 6, 3, 4, 2],
    [2, 37, 64, 8, 6, 8],
    [1, 70, 20, 4, 70, 1], // more segments than the fused kernels take
  ])('batch %d, steps %d, hidden %d, heads %d, segments %d of %d', (b, l, d, heads, segments, length) => {
    const [x, keys] = [both([b, l, d]), both([b, segments, d])];
    const [weight, bias] = [both([d, 2 * d]), both([d])];
    for (const pooling of ['mean', 'max']) {
      compare('segmentPool', { x }, { segments, length, pooling });
      compare('tdhp', { x, weight, bias }, { segments, length, pooling });
    }
    compare('extraSegmentAttention', { x: keys }, {});
    compare('intraSegmentAttention', { extra: keys, x }, { length });
    compare('fusion', { extra: keys, intra: both([b, segments, d]), weight, bias }, {});
    compare('keyAttention', { x, keys }, { heads });
    const layer = { output: both([d, d]), feedForward: both([d, d]), feedForwardBias: both([d]) };
    for (const [norm, activation] of [
      ['layernorm', 'relu'],
      ['batchnorm', 'silu'],
      ['scalenorm', 'gelu'],
      ['rmsnorm', 'gelu_tanh'],
    ] as const) {
      // A row of one channel has no spread: its norm is 0 / epsilon, and rounding decides.
      if (d === 1 && norm !== 'batchnorm') continue;
      compare('norm', { x: both([b * l, d]), ...normParts(norm, '', d) }, { norm });
      const norms = { ...normParts(norm, 'norm1', d), ...normParts(norm, 'norm2', d) };
      compare('layer', { x, keys, ...layer, ...norms }, { heads, norm, activation });
      compare('dense', { x: both([b * l, d]), weight: both([d + 3, d]), bias: both([d + 3]) }, { activation });
    }
    for (const link of ['none', 'sigmoid', 'softmax'])
      compare('head', { x: both([b * l, d]), weight: both([3, d]), bias: both([3]) }, { link });
  });

  test('embed: every kind, positions, padding and norm', () => {
    const norm = { normWeight: both([10], 0.5), normBias: both([10]) };
    const features = { x: both([2, 9, 5]), weight: both([10, 5]), bias: both([10]) };
    compare('embed', features, { kind: 'features', positions: 'interleaved', scaleInput: true });
    compare(
      'embed',
      { ...features, ...norm, positions: both([12, 10]) },
      { kind: 'features', positions: 'learned', maximum: 12 },
    );
    const tokens = new Tensor(
      'int32',
      Int32Array.from({ length: 18 }, (_, i) => (i % 5 === 3 ? 1 : i % 7)),
      [2, 9],
    );
    const table = { tokens, weight: both([7, 10]) };
    compare('embed', { ...table, ...norm }, { kind: 'tokens', positions: 'halves', padding: 1 });
    compare(
      'embed',
      { ...table, positions: both([14, 10]) },
      { kind: 'tokens', positions: 'learned', maximum: 12, padding: 1 },
    );
    compare('embed', table, { kind: 'tokens', positions: 'none' });
    const scalar = { x: both([2, 9]), weight: both([10]), bias: both([10]) };
    compare('embed', scalar, { kind: 'scalar', positions: 'none' });
  });

  test('timing: as many times as asked for, and the results of a call', () => {
    const x = both([1, 8, 6])[0];
    const options = { segments: 2, length: 4, pooling: 'mean' };
    const { results, times } = timeOnDevice('segmentPool', { x }, { ...options, device }, 3);
    expect(results.out!.data).toEqual(kernels.segmentPool({ x }, { ...options, device }).out!.data);
    expect(times).toHaveLength(3);
    for (const ms of times) expect(ms).toBeGreaterThan(0);
  });

  test('what is refused', () => {
    const [narrow, wide] = both([1, 4, 6]);
    const options = { segments: 2, length: 2, pooling: 'mean' };
    const call = (x: Tensor, on: string) => () => kernels.segmentPool({ x }, { ...options, device: on });
    expect(call(wide, device)).toThrow('expected float32 on a CUDA device, got float64');
    expect(call(narrow, 'cuda:7')).toThrow(expect.objectContaining({ code: 'ERR_HPFORMER_DEVICE' }));
    expect(call(narrow, 'gpu')).toThrow('device: expected cpu or cuda:<n>, got "gpu"');
    expect(call(narrow, 'cpu')().out!.data).toEqual(kernels.segmentPool({ x: narrow }, options).out!.data);
    const many = new Tensor('float32', new Float32Array(9000), [1, 9000, 1]);
    expect(() => kernels.extraSegmentAttention({ x: many }, { device })).toThrow(
      expect.objectContaining({ code: 'ERR_HPFORMER_LIMIT' }),
    );
  });
});
