/** Each kernel by itself, chained, against the stages that a whole model traces. */
import { HPformer, kernels, presets, Tensor } from '../../../src';
import { initialWeights } from '../../../src/checkpoint/init';
import { loadCheckpoint } from '../../../src/checkpoint/load';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { validateConfig } from '../../../src/config/validate';
import { excess } from '../../golden/fixture';
import { seed } from '../../seed';

const config = validateConfig(
  presets.listops({
    embedding: { kind: 'tokens', vocabulary: 12, padding: 1 },
    embeddingNorm: true,
    norm: 'batchnorm',
    hidden: 12,
    heads: 3,
    layers: 1,
    head: { layers: [{ size: 7, activation: 'gelu' }], labels: 3, bias: true, link: 'softmax' },
  }),
);
const steps = 21;
const ids = Int32Array.from({ length: 2 * steps }, (_, i) => (i % 9 === 4 ? 1 : (i * 5) % 12));
const tokens = new Tensor('int32', ids, [2, steps]);

describe.each(['float64', 'float32'] as const)('%s', (type) => {
  const bound = type === 'float64' ? 1e-12 : 1e-5;
  let trace: Record<string, Tensor>;
  const weight = new Map<string, Tensor>();

  beforeAll(async () => {
    const bytes = serializeCheckpoint(config, initialWeights(config, 11));
    const model = await HPformer.load(bytes, { device: type === 'float64' ? 'reference' : 'cpu' });
    trace = await model.trace({ tokens });
    model.dispose();
    for (const [name, { data, dims }] of (await loadCheckpoint(bytes)).weights) {
      weight.set(
        name,
        type === 'float64'
          ? new Tensor(type, Float64Array.from(data), dims)
          : new Tensor(type, Float32Array.from(data), dims),
      );
    }
  });
  const w = (name: string) => weight.get(name)!;
  const close = (got: Tensor, stage: string) => {
    expect(got.type).toBe(type);
    expect(excess(got.data as Float64Array, trace[stage]!.data as Float64Array, bound, bound)).toBeLessThanOrEqual(1);
  };
  const zip = (tensor: Tensor, dims: number[]) => new Tensor(tensor.type, tensor.data as never, dims);

  test('the chain of single steps is the model', () => {
    const options = { kind: 'tokens', padding: 1, positions: 'halves', scaleInput: true };
    const { out: embedded } = kernels.embed(
      {
        tokens,
        weight: w('embedding.weight'),
        normWeight: w('embeddingNorm.weight'),
        normBias: w('embeddingNorm.bias'),
      },
      options,
    ) as { out: Tensor };
    close(embedded, 'embedded');
    // 21 steps: n0 = 4, b = 5, one step left over: 5 segments of 5.
    const { out: pool } = kernels.segmentPool({ x: embedded }, { segments: 5, length: 5, pooling: 'mean' }) as {
      out: Tensor;
    };
    close(pool, 'segmentPool');
    const { out: extra, weights } = kernels.extraSegmentAttention({ x: pool }) as { out: Tensor; weights: Tensor };
    close(extra, 'extraSegment');
    expect(weights.dims).toEqual([2, 5, 5]);
    const { out: intra } = kernels.intraSegmentAttention({ extra, x: embedded }, { length: 5 }) as { out: Tensor };
    close(intra, 'intraSegment');
    const fusion = { weight: w('tdhp.fusion.weight'), bias: w('tdhp.fusion.bias') };
    const { out: keys } = kernels.fusion({ extra, intra, ...fusion }) as { out: Tensor };
    close(keys, 'keys');
    close(kernels.tdhp({ x: embedded, ...fusion }, { segments: 5, length: 5, pooling: 'mean' }).out!, 'keys');
    const norms = Object.fromEntries(
      [1, 2].flatMap((n) =>
        (['weight', 'bias', 'mean', 'variance'] as const).map((part) => [
          `norm${n}${part[0]!.toUpperCase()}${part.slice(1)}`,
          w(`layers.0.norm${n}.${part}`),
        ]),
      ),
    );
    const inputs = {
      x: embedded,
      keys,
      output: w('layers.0.output.weight'),
      feedForward: w('layers.0.feedForward.weight'),
      feedForwardBias: w('layers.0.feedForward.bias'),
      ...norms,
    };
    const { out: layer } = kernels.layer(inputs, { heads: 3, norm: 'batchnorm', activation: 'silu' }) as {
      out: Tensor;
    };
    close(layer, 'layer.0');

    // The same layer from its own steps.
    const attended = kernels.keyAttention({ x: embedded, keys }, { heads: 3 });
    expect(attended.weights!.dims).toEqual([2, steps, 3, 5]);
    const rows = (tensor: Tensor) => zip(tensor, [2 * steps, 12]);
    const sum = (a: Tensor, b: Tensor) =>
      new Tensor(type, (a.data as Float64Array).map((value, i) => value + (b.data as Float64Array)[i]!) as never, [
        2 * steps,
        12,
      ]);
    const norm = (n: number, x: Tensor) =>
      kernels.norm(
        {
          x,
          weight: w(`layers.0.norm${n}.weight`),
          bias: w(`layers.0.norm${n}.bias`),
          mean: w(`layers.0.norm${n}.mean`),
          variance: w(`layers.0.norm${n}.variance`),
        },
        { norm: 'batchnorm' },
      ).out!;
    const projected = kernels.dense(
      { x: rows(attended.out!), weight: w('layers.0.output.weight') },
      { activation: 'linear' },
    ).out!;
    const middle = norm(1, sum(embedded, projected));
    const branch = kernels.dense(
      { x: middle, weight: w('layers.0.feedForward.weight'), bias: w('layers.0.feedForward.bias') },
      { activation: 'silu' },
    ).out!;
    close(norm(2, sum(middle, branch)), 'layer.0');

    const hidden = kernels.dense(
      { x: trace.pooled!, weight: w('head.layers.0.weight'), bias: w('head.layers.0.bias') },
      { activation: 'gelu' },
    ).out!;
    close(hidden, 'head.0');
    const head = kernels.head(
      { x: hidden, weight: w('head.output.weight'), bias: w('head.output.bias') },
      { link: 'softmax' },
    );
    close(head.logits!, 'logits');
    close(head.probabilities!, 'probabilities');
  });
});

test('every kernel says what it does and takes', () => {
  expect(Object.keys(kernels)).toHaveLength(11);
  for (const kernel of Object.values(kernels)) {
    expect(kernel.doc).not.toBe('');
    expect(Object.keys(kernel.signature.outputs).length).toBeGreaterThan(0);
  }
});

describe('what is refused', () => {
  const x = new Tensor('float32', new Float32Array(24), [1, 4, 6]);
  const keys = new Tensor('float32', new Float32Array(12), [1, 2, 6]);
  const call = (name: keyof typeof kernels, inputs: object, options?: object) => () =>
    kernels[name](inputs as never, options as never);
  test.each([
    [call('segmentPool', null as never), 'TYPE', 'expected tensors by name'],
    [
      call('segmentPool', {}, { segments: 2, length: 2, pooling: 'mean' }),
      'INPUT',
      'x: expected [batch, steps, hidden], got nothing',
    ],
    [call('segmentPool', { x, y: x }, { segments: 2, length: 2, pooling: 'mean' }), 'INPUT', 'got "y"'],
    [
      call('segmentPool', { x }, { segments: 2, length: 2, pooling: 'sum' }),
      'RANGE',
      'pooling: expected one of mean, max, got "sum"',
    ],
    [call('segmentPool', { x }, { segments: 2, length: 2, pooling: 'mean', speed: 1 }), 'INPUT', 'got "speed"'],
    [call('segmentPool', { x }, { segments: 0, length: 2, pooling: 'mean' }), 'RANGE', 'segments'],
    [call('segmentPool', { x }, { segments: 1, length: 2, pooling: 'mean' }), 'SHAPE', 'segments'],
    [
      call('segmentPool', { x: new Float32Array(24) }, { segments: 2, length: 2, pooling: 'mean' }),
      'TYPE',
      'expected a tensor, got a bare Float32Array',
    ],
    [call('keyAttention', { x, keys }, { heads: 4 }), 'SHAPE', 'heads: expected a divisor of 6, got 4'],
    [
      call('keyAttention', { x, keys: new Tensor('float32', new Float32Array(10), [1, 2, 5]) }, { heads: 2 }),
      'SHAPE',
      'keys: expected [batch, segments, hidden] = [1, 2, 6], got [1, 2, 5]',
    ],
    [
      call('keyAttention', { x, keys: new Tensor('float64', new Float64Array(12), [1, 2, 6]) }, { heads: 2 }),
      'TYPE',
      'expected float64 for all tensors or for none',
    ],
    [
      call(
        'norm',
        {
          x: new Tensor('float32', new Float32Array(6), [1, 6]),
          weight: new Tensor('float32', new Float32Array(6), [6]),
        },
        { norm: 'layernorm' },
      ),
      'INPUT',
      'bias',
    ],
    [
      call(
        'embed',
        {
          tokens: new Tensor('int32', Int32Array.of(9), [1, 1]),
          weight: new Tensor('float32', new Float32Array(8), [2, 4]),
        },
        { kind: 'tokens', positions: 'none' },
      ),
      'RANGE',
      'expected ids from 0 to 1, got 9',
    ],
    [call('segmentPool', { x }, null as never), 'TYPE', 'kernels.segmentPool: expected options by name, got null'],
    [
      call('norm', { x, weight: x }, { norm: 'layernorm' }),
      'SHAPE',
      'kernels.norm: x: expected [rows, hidden], got [1, 4, 6]',
    ],
    [
      call('keyAttention', { x, keys: x }, { heads: 4 }),
      'SHAPE',
      'kernels.keyAttention: heads: expected a divisor of 6, got 4',
    ],
  ])('%#', (action, code, message) => {
    expect(action).toThrow(message);
    expect(action).toThrow(expect.objectContaining({ code: `ERR_HPFORMER_${code}` }));
  });
});

describe('float32 (the kernels of the CPU backend) against float64 (the reference)', () => {
  let state = seed || 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  /** The same numbers in both types. */
  const both = (dims: number[], low = -1) => {
    const data = Float32Array.from(
      { length: dims.reduce((a, b) => a * b, 1) },
      () => low + (1 - low) * (random() / 2 + 0.5),
    );
    return [new Tensor('float32', data, dims), new Tensor('float64', Float64Array.from(data), dims)] as const;
  };
  type Pair = readonly [Tensor, Tensor];
  const compare = (
    name: keyof typeof kernels,
    inputs: Record<string, Pair>,
    options: Record<string, string | number>,
  ) => {
    const pick = (i: 0 | 1) => Object.fromEntries(Object.entries(inputs).map(([key, pair]) => [key, pair[i]]));
    const [narrow, wide] = [kernels[name](pick(0) as never, options), kernels[name](pick(1) as never, options)];
    for (const key of Object.keys(wide)) {
      const [a, b] = [narrow[key]!.data as Float64Array, wide[key]!.data as Float64Array];
      expect({ name, key, options, seed, excess: excess(a, b, 2e-5, 2e-5) <= 1 }).toEqual({
        name,
        key,
        options,
        seed,
        excess: true,
      });
    }
  };
  // Batch, steps, hidden, heads, segments, length: one of each, odd widths, more rows than a tile, zero rows at the end.
  const shapes = [
    [1, 1, 1, 1, 1, 1],
    [2, 7, 6, 3, 3, 3],
    [1, 50, 20, 4, 7, 8],
    [3, 130, 17, 1, 5, 30],
    [1, 33, 64, 8, 9, 4],
    [1, 500, 8, 2, 3, 200], // segments longer than one block of the scan
  ] as const;

  test.each(shapes)(
    `batch %d, steps %d, hidden %d, heads %d, segments %d of %d (seed=${seed})`,
    (b, l, d, heads, segments, length) => {
      const cut = { segments, length };
      const [x, keys] = [both([b, l, d]), both([b, segments, d])];
      const [weight, bias] = [both([d, 2 * d]), both([d])];
      for (const pooling of ['mean', 'max']) {
        compare('segmentPool', { x }, { ...cut, pooling });
        compare('tdhp', { x, weight, bias }, { ...cut, pooling });
      }
      compare('extraSegmentAttention', { x: keys }, {});
      compare('intraSegmentAttention', { extra: keys, x }, { length });
      compare('fusion', { extra: keys, intra: both([b, segments, d]), weight, bias }, {});
      compare('keyAttention', { x, keys }, { heads });
      for (const norm of ['layernorm', 'batchnorm', 'scalenorm', 'rmsnorm'] as const) {
        const parts = (prefix: string) => {
          const name = (part: string) => (prefix === '' ? part.toLowerCase() : prefix + part);
          const own: Record<string, Pair> = { [name('Weight')]: both([norm === 'scalenorm' ? 1 : d], 0.5) };
          if (norm === 'layernorm' || norm === 'batchnorm') own[name('Bias')] = both([d]);
          if (norm === 'batchnorm')
            Object.assign(own, { [name('Mean')]: both([d]), [name('Variance')]: both([d], 0.5) });
          return own;
        };
        // A row of one channel has no spread: its norm is 0 / epsilon, and rounding decides.
        if (d === 1 && norm !== 'batchnorm') continue;
        compare('norm', { x: both([b * l, d]), ...parts('') }, { norm });
        const layer = { output: both([d, d]), feedForward: both([d, d]), feedForwardBias: both([d]) };
        for (const activation of ['linear', 'relu', 'silu', 'gelu', 'gelu_tanh'])
          compare('layer', { x, keys, ...layer, ...parts('norm1'), ...parts('norm2') }, { heads, norm, activation });
      }
      for (const activation of ['linear', 'relu', 'silu', 'gelu', 'gelu_tanh'])
        compare('dense', { x: both([b * l, d]), weight: both([d + 3, d]), bias: both([d + 3]) }, { activation });
    },
  );
});
