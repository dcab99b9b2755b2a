import { type HPformerConfig, HPformerError, Tensor } from '../../../src';
import { legalFeeds, prepareFeeds } from '../../../src/model/feeds';
import { health, image, retrieval, text, valid } from './configs';

const real = (...dims: number[]) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
const ids = (values: number[][]) =>
  new Tensor('int32', Int32Array.from(values.flat()), [values.length, values[0]!.length]);
const ints = (...values: number[]) => new Tensor('int32', Int32Array.from(values), [values.length]);

function refused(config: HPformerConfig, feeds: unknown): string {
  try {
    prepareFeeds(config, feeds as never, false);
  } catch (error) {
    expect(error).toBeInstanceOf(HPformerError);
    const { code, message } = error as HPformerError;
    return `${code.slice('ERR_HPFORMER_'.length)} ${message}`;
  }
  return 'accepted';
}

test('which feeds a model takes', () => {
  expect(legalFeeds(health())).toEqual(['features', 'lengths', 'step', 'readoutWeights']);
  expect(legalFeeds(text())).toEqual(['tokens', 'lengths']);
  expect(legalFeeds(image())).toEqual(['values', 'lengths']);
  expect(legalFeeds(retrieval())).toEqual(['tokens', 'tokens2', 'lengths', 'lengths2']);
});

describe('what is taken', () => {
  test('float32 and int32 pass through without a copy', () => {
    const features = real(3, 48, 5);
    const step = ints(0, 47, 3);
    const prepared = prepareFeeds(health(), { features, step }, false);
    expect(prepared).toMatchObject({ batch: 3, first: { segmentsMax: 4, feed: { steps: 48 } } });
    expect(prepared.first.feed.features).toBe(features.data);
    expect(prepared.step).toBe(step.data);
  });

  test('the reference takes float64 as it is and widens the rest', () => {
    const data = new Float64Array(240);
    expect(
      prepareFeeds(health(), { features: new Tensor('float64', data, [1, 48, 5]) }, true).first.feed.features,
    ).toBe(data);
    expect(prepareFeeds(health(), { features: real(1, 48, 5) }, true).first.feed.features).toEqual(
      new Float64Array(240),
    );
  });

  test('bare arrays for a batch of one', () => {
    expect(prepareFeeds(health(), { features: new Float32Array(240), step: new Int32Array([7]) }, false)).toMatchObject(
      { batch: 1, first: { feed: { steps: 48 } } },
    );
    expect(prepareFeeds(text(), { tokens: new BigInt64Array([3n, 4n]) }, false).first.feed.tokens).toEqual(
      new Int32Array([3, 4]),
    );
    expect(prepareFeeds(image(), { values: new Float64Array(10) }, false).first.feed).toMatchObject({ steps: 10 });
    expect(
      prepareFeeds(health(), { features: new Float32Array(240), readoutWeights: new Float32Array(48) }, false)
        .readoutWeights,
    ).toHaveLength(48);
  });

  test("over 'valid', what stands beyond a length is never read, in 64 bits either", () => {
    const config = valid(text());
    const tokens = new Tensor(
      'int64',
      BigInt64Array.from([3n, 4n, 5n, 2n ** 50n, 6n, 7n, -(2n ** 40n), 2n ** 62n]),
      [2, 4],
    );
    const feeds = (...lengths: number[]) => ({ tokens, lengths: new Tensor('int32', Int32Array.from(lengths), [2]) });
    expect(prepareFeeds(config, feeds(3, 2), false).first.feed.tokens!.subarray(0, 3)).toEqual(Int32Array.of(3, 4, 5));
    expect(() => prepareFeeds(config, feeds(4, 2), false)).toThrow('got 1125899906842624 at element 3');
    expect(() => prepareFeeds(config, feeds(3, 3), false)).toThrow('got -1099511627776 at element 6');
  });

  test('int64 and uint8 tokens, bool readout weights, undefined as absent', () => {
    const wide = new Tensor('int64', BigInt64Array.from([3n, 19n]), [1, 2]);
    expect(prepareFeeds(text(), { tokens: wide }, false).first.feed.tokens).toEqual(new Int32Array([3, 19]));
    const mask = new Tensor('bool', new Uint8Array(48).fill(1, 47), [1, 48]);
    const prepared = prepareFeeds(
      health(),
      { features: real(1, 48, 5), readoutWeights: mask, step: undefined } as never,
      false,
    );
    expect(prepared.readoutWeights![47]).toBe(1);
  });

  test('two sequences of their own lengths', () => {
    const prepared = prepareFeeds(
      retrieval(),
      { tokens: ids([[2, 3, 4]]), tokens2: ids([[2, 3, 4, 5, 6]]), lengths2: ints(4) },
      false,
    );
    expect([prepared.first.feed.steps, prepared.second!.feed.steps]).toEqual([3, 5]);
    expect(prepared.second!.feed.lengths).toEqual(new Int32Array([4]));
  });

  test('padded: lengths may exceed the steps', () => {
    expect(prepareFeeds(text(), { tokens: ids([[2, 3]]), lengths: ints(9) }, false).first.feed.lengths).toEqual(
      new Int32Array([9]),
    );
  });

  test('valid: a length is where the last token is not padding; segments are the most of the batch', () => {
    const tokens = ids([
      [2, 1, 3, 1, 1, 1, 1, 1, 1, 1],
      [2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
    ]);
    const { first } = prepareFeeds(valid(text()), { tokens }, false);
    expect(first.feed.lengths).toEqual(new Int32Array([3, 10]));
    expect(first.segmentsMax).toBe(4);
    expect(prepareFeeds(valid(text()), { tokens, lengths: ints(5, 8) }, false).first.segmentsMax).toBe(5);
  });

  test('indices in shared memory are copied: nobody may change them after they were checked', () => {
    const shared = new Int32Array(new SharedArrayBuffer(8));
    const tokens = new Tensor('int32', shared, [1, 2]);
    expect(prepareFeeds(text(), { tokens }, false).first.feed.tokens).not.toBe(shared);
    const step = new Int32Array(new SharedArrayBuffer(4));
    expect(
      prepareFeeds(health(), { features: real(1, 48, 5), step: new Tensor('int32', step, [1]) }, false).step,
    ).not.toBe(step);
    const features = new Float32Array(new SharedArrayBuffer(960));
    expect(
      prepareFeeds(health(), { features: new Tensor('float32', features, [1, 48, 5]) }, false).first.feed.features,
    ).toBe(features);
  });
});

describe('what is refused', () => {
  const features = real(2, 48, 5);
  const tokens = ids([
    [2, 3],
    [4, 5],
  ]);
  const huge = { type: 'float32', data: new Float32Array(0), dims: [2 ** 31, 2 ** 31, 5] };
  const cases: [string, HPformerConfig, unknown, string][] = [
    ['no object', health(), null, 'TYPE feeds: expected an object of tensors by name, got null'],
    ['an array', health(), new Float32Array(3), 'TYPE feeds: expected an object'],
    ['nothing', health(), {}, 'INPUT features: expected [batch, steps, 5], got nothing'],
    ['half of two', retrieval(), { tokens }, 'INPUT tokens2: expected [batch, steps], got nothing'],
    [
      'an unknown feed',
      health(),
      { features, mask: features },
      'INPUT feeds: this model takes features, lengths, step, readoutWeights, got "mask"',
    ],
    [
      "another family's feed",
      text(),
      { tokens, features },
      'INPUT feeds: this model takes tokens, lengths, got "features"',
    ],
    [
      'step with readout mean',
      text(),
      { tokens, step: ints(0, 0) },
      'INPUT feeds: this model takes tokens, lengths, got "step"; it belongs to readout "step"',
    ],
    [
      'both readouts',
      health(),
      { features, step: ints(0, 0), readoutWeights: real(2, 48) },
      'INPUT feeds: step and readoutWeights contradict',
    ],
    ['a wrong rank', health(), { features: real(2, 48) }, 'SHAPE features: expected [batch, steps, 5], got [2, 48]'],
    [
      'a wrong width',
      health(),
      { features: real(2, 48, 4) },
      'SHAPE features: expected [batch, steps, 5], got [2, 48, 4]',
    ],
    [
      'an empty batch',
      health(),
      { features: real(0, 48, 5) },
      'SHAPE features: expected [batch, steps, 5] with batch and steps from 1',
    ],
    [
      'no steps',
      text(),
      { tokens: { type: 'int32', data: new Int32Array(0), dims: [3, 0] } },
      'SHAPE tokens: expected [batch, steps] with',
    ],
    ['products that overflow', health(), { features: huge }, 'SHAPE features: the product of dims'],
    [
      'dims that lie',
      health(),
      { features: { type: 'float32', data: new Float32Array(3), dims: [1, 48, 5] } },
      'SHAPE features: dims [1, 48, 5] need 240 elements, got 3',
    ],
    [
      'an indivisible length',
      health(),
      { features: real(1, 47, 5) },
      'SHAPE features: expected a length that 4 segments divide (nearest: 44 or 48), got 47',
    ],
    [
      'integers as features',
      health(),
      { features: { type: 'int32', data: new Int32Array(240), dims: [1, 48, 5] } },
      'TYPE features: expected real numbers',
    ],
    [
      'real tokens',
      text(),
      { tokens: real(1, 4) },
      'TYPE tokens: expected integers (int32, int64 or uint8), got float32',
    ],
    [
      'an array of numbers',
      text(),
      { tokens: [1, 2, 3] },
      'TYPE tokens: expected a tensor { type, data, dims } or a typed array, got [1, 2, 3]',
    ],
    ['a number', text(), { tokens: 7 }, 'TYPE tokens: expected a tensor { type, data, dims } or a typed array, got 7'],
    [
      'tokens too wide',
      text(),
      { tokens: { type: 'int64', data: new BigInt64Array([2n ** 33n]), dims: [1, 1] } },
      'RANGE tokens: expected integers that fit 32 bits',
    ],
    [
      'a bare array of another size',
      health(),
      { features: new Float32Array(241) },
      'SHAPE features: expected a multiple of 5 elements in a bare Float32Array, got 241',
    ],
    [
      'a bare step for two',
      health(),
      { features, step: new Int32Array(2) },
      'SHAPE step: expected a tensor of dims [batch] for a batch of 2, got a bare Int32Array',
    ],
    [
      'a bare step of two',
      health(),
      { features: real(1, 48, 5), step: new Int32Array(2) },
      'SHAPE step: expected [batch] for a batch of 1, got a bare Int32Array of 2 elements',
    ],
    ['another batch of steps', health(), { features, step: ints(1) }, 'SHAPE step: expected [2], got [1]'],
    [
      'a step beyond the end',
      health(),
      { features, step: ints(0, 48) },
      'RANGE step: expected 0 to 47 for sequence 1, got 48',
    ],
    [
      'a step before the start',
      health(),
      { features, step: ints(-1, 0) },
      'RANGE step: expected 0 to 47 for sequence 0, got -1',
    ],
    [
      'a step beyond a valid length',
      valid(health()),
      { features, lengths: ints(20, 48), step: ints(20, 0) },
      'RANGE step: expected 0 to 19 for sequence 0, got 20',
    ],
    ['real steps', health(), { features, step: real(2) }, 'TYPE step: expected integers'],
    [
      'weights of another shape',
      health(),
      { features, readoutWeights: real(2, 47) },
      'SHAPE readoutWeights: expected [2, 48], got [2, 47]',
    ],
    [
      'a length of zero',
      text(),
      { tokens, lengths: ints(1, 0) },
      'RANGE lengths: expected at least 1, got 0 for sequence 1',
    ],
    [
      'a valid length beyond the steps',
      valid(text()),
      { tokens, lengths: ints(1, 3) },
      'RANGE lengths: expected 1 to 2, got 3 for sequence 1',
    ],
    ['lengths of another batch', text(), { tokens, lengths: ints(1) }, 'SHAPE lengths: expected [2], got [1]'],
    [
      'nothing but padding',
      valid(text()),
      { tokens: ids([[1, 1]]) },
      'RANGE lengths: sequence 0 of tokens holds padding only',
    ],
    [
      'two batches',
      retrieval(),
      { tokens, tokens2: ids([[1, 2]]) },
      'SHAPE tokens2: expected a batch of 2 as in tokens, got 1',
    ],
    [
      'too few steps for the segments',
      text({ segments: { ...text().segments, times: 3 } }),
      { tokens: ids([[2, 3, 4]]) },
      'SHAPE tokens: expected a length of at least 6',
    ],
    [
      'too few steps in one sequence',
      valid(text({ segments: { ...text().segments, times: 3 } })),
      {
        tokens: ids([
          [2, 3, 4, 5, 6, 7],
          [2, 3, 1, 1, 1, 1],
        ]),
      },
      'SHAPE tokens: sequence 1: expected a length of at least 3',
    ],
    [
      'more steps than positions',
      image({ positions: { kind: 'learned', maximum: 4 } }),
      { values: real(1, 5) },
      'SHAPE values: expected at most 4 steps (learned positions), got 5',
    ],
  ];

  test.each(cases)('%s', (_, config, feeds, expected) => {
    expect(refused(config, feeds)).toContain(expected);
  });

  test('learned positions bound the valid length, not the padded one', () => {
    const config = valid(image({ positions: { kind: 'learned', maximum: 4 } }));
    expect(refused(config, { values: real(2, 9), lengths: ints(4, 2) })).toBe('accepted');
    expect(refused(config, { values: real(2, 9), lengths: ints(4, 5) })).toContain('at most 4 steps');
  });
});
