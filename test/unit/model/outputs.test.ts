import { type HPformerConfig, HPformerError, Tensor } from '../../../src';
import { prepareFeeds } from '../../../src/model/feeds';
import { resolveOptions } from '../../../src/model/options';
import { checkOutputs, defaultOutputs, legalOutputs, prepareRun, traceOutputs } from '../../../src/model/outputs';
import { health, retrieval, text, valid } from './configs';

const features = new Tensor('float32', new Float32Array(2 * 48 * 5), [2, 48, 5]);
const shared = { double: false, trace: false, rewrites: 127, maxBytes: 2 ** 30 };

test('names follow the configuration', () => {
  expect(legalOutputs(health())).toEqual([
    'logits',
    'probabilities',
    'pooled',
    'keys',
    'segments',
    'attention',
    'segmentAttention',
    'intraAttention',
  ]);
  expect(legalOutputs(health({ readout: 'steps' }))).not.toContain('pooled');
  const none = health({ head: { ...health().head, link: 'none' } });
  expect(legalOutputs(none)).not.toContain('probabilities');
  expect(defaultOutputs(none)).toEqual(['logits']);
  expect(legalOutputs(retrieval())).toEqual(expect.arrayContaining(['second.pooled', 'second.keys']));
  expect(traceOutputs(text())).toEqual([
    ...['embedded', 'segmentPool', 'extraSegment', 'intraSegment', 'keys', 'layer.0', 'layer.1', 'encoded', 'pooled'],
    ...['head.0', 'logits', 'probabilities'],
  ]);
  expect(traceOutputs(retrieval())).toContain('second.layer.1');
});

test('an unknown, inapplicable or empty list names what is legal', () => {
  const check = (config: HPformerConfig, outputs: unknown) => () => checkOutputs(config, outputs as string[]);
  expect(check(health(), ['logit'])).toThrow(
    'outputs: expected names among logits, probabilities, pooled, keys, segments, attention, segmentAttention, intraAttention, got "logit"',
  );
  expect(check(health({ readout: 'steps' }), ['pooled'])).toThrow(
    expect.objectContaining({ code: 'ERR_HPFORMER_INPUT' }),
  );
  expect(check(health(), ['second.keys'])).toThrow(HPformerError);
  expect(check(health(), ['embedded'])).toThrow(HPformerError);
  expect(check(health(), [])).toThrow('expected at least one of');
  expect(check(health(), 'logits')).toThrow(expect.objectContaining({ code: 'ERR_HPFORMER_TYPE' }));
  expect(check(health(), [7])).toThrow('got 7');
  expect(checkOutputs(health(), ['keys', 'keys'])).toEqual(['keys']);
});

test('dims of every output', () => {
  const run = (config: HPformerConfig, feeds: object, names: string[]) => {
    const { results } = prepareRun(config, prepareFeeds(config, feeds, false), names, shared);
    return Object.fromEntries(Object.entries(results()).map(([name, tensor]) => [name, tensor.dims]));
  };
  const names = ['attention', 'segmentAttention', 'intraAttention', 'keys', 'segments', 'pooled', 'logits'];
  expect(run(health(), { features }, names)).toEqual({
    attention: [2, 2, 8, 4],
    segmentAttention: [2, 4, 4],
    intraAttention: [2, 48],
    keys: [2, 4, 16],
    segments: [2],
    pooled: [2, 16],
    logits: [2, 1],
  });
  const readoutWeights = new Tensor('float32', new Float32Array(96), [2, 48]);
  expect(run(health(), { features, readoutWeights }, ['attention'])).toEqual({ attention: [2, 48, 2, 8, 4] });
  expect(run(health({ readout: 'steps' }), { features }, ['attention', 'logits'])).toEqual({
    attention: [2, 48, 2, 8, 4],
    logits: [2, 48, 1],
  });
  // Ragged: the most segments of the batch.
  const lengths = new Tensor('int32', Int32Array.of(2, 48), [2]);
  expect(run(valid(health()), { features, lengths }, ['keys'])).toEqual({ keys: [2, 4, 16] });
});

test('exactly what was asked for reaches native code', () => {
  const feeds = prepareFeeds(health(), { features }, false);
  const { request, results } = prepareRun(health(), feeds, ['keys'], shared);
  expect(request.logits).toBeUndefined();
  expect(request.out).toEqual({ segmentsMax: 4, keys: new Float32Array(2 * 4 * 16) });
  expect(Object.keys(results())).toEqual(['keys']);
  expect(results().keys!.type).toBe('float32');
  const double = prepareRun(health(), feeds, ['logits', 'segments'], { ...shared, double: true }).results();
  expect([double.logits!.type, double.segments!.type]).toEqual(['float64', 'int32']);
});

test('a limit refuses before anything is allocated', () => {
  const feeds = prepareFeeds(health(), { features }, false);
  const ask = (maxBytes: number) => () => prepareRun(health(), feeds, ['keys'], { ...shared, maxBytes });
  // features [2, 48, 5]; pooled rows 2 · 16, 4 segments of 6 rows and 4 scores each, 48 steps; keys [2, 4, 16].
  expect(ask(1920 + 1920 + 512)).not.toThrow();
  expect(ask(4351)).toThrow(expect.objectContaining({ code: 'ERR_HPFORMER_LIMIT' }));
  expect(ask(4351)).toThrow(
    'run: expected at most 4351 bytes (load option maxBytes), this one needs 4352: feeds 1920, scratch memory 1920, outputs 512: keys [2, 4, 16]',
  );
});

test('more than the machine can address is an error of memory', () => {
  const tokens = new Tensor('int32', new Int32Array(2000), [1, 2000]);
  const config = text({ heads: 16, layers: 4096, segments: { ...text().segments, times: 200 } });
  const feeds = prepareFeeds(config, { tokens }, false);
  expect(() => prepareRun(config, feeds, ['attention'], { ...shared, maxBytes: Number.MAX_SAFE_INTEGER })).toThrow(
    expect.objectContaining({ code: 'ERR_HPFORMER_MEMORY' }),
  );
});

describe('options', () => {
  test('defaults', () => {
    expect(resolveOptions(undefined)).toEqual({
      device: 'auto',
      precision: 'float32',
      threads: 0,
      signal: undefined,
      rejectNonFinite: false,
      rewrites: 127,
      maxBytes: 2 * 2 ** 30,
    });
  });

  test('rewrites become bits', () => {
    expect(resolveOptions({ rewrites: { depthFirst: false, foldedWeights: false, tokenTables: true } }).rewrites).toBe(
      0b0111110,
    );
  });

  test.each([
    ['x', 'TYPE'],
    [{ device: 'gpu' }, 'DEVICE'],
    [{ device: 'cuda:x' }, 'DEVICE'],
    [{ device: 'cuda:00' }, 'DEVICE'],
    [{ precision: 'float16' }, 'DEVICE'],
    [{ threads: 0 }, 'RANGE'],
    [{ threads: 1.5 }, 'RANGE'],
    [{ threads: '2' }, 'TYPE'],
    [{ nonFinite: 'ignore' }, 'INPUT'],
    [{ rewrites: { fast: true } }, 'INPUT'],
    [{ rewrites: { depthFirst: 1 } }, 'TYPE'],
    [{ rewrites: true }, 'TYPE'],
    [{ maxBytes: 0 }, 'RANGE'],
    [{ signal: {} }, 'TYPE'],
    [{ signal: null }, 'TYPE'],
  ])('%p', (options, code) => {
    expect(() => resolveOptions(options as never)).toThrow(expect.objectContaining({ code: `ERR_HPFORMER_${code}` }));
  });
});
