import fc from 'fast-check';
import { mergeConfigs } from '../../../src/config/merge';
import { type PresetName, presets } from '../../../src/config/presets';
import { validateConfig } from '../../../src/config/validate';
import { HPformerError } from '../../../src/errors';
import { seed } from '../../seed';
import { errorOf } from '../checkpoint/support';

const health = {
  embedding: { kind: 'features', size: 3 },
  hidden: 8,
  heads: 2,
  layers: 1,
  readout: 'step',
  head: { labels: 1, link: 'sigmoid' },
};
const text = {
  embedding: { kind: 'tokens', vocabulary: 9 },
  hidden: 8,
  heads: 2,
  layers: 1,
  activation: 'silu',
  head: { labels: 2 },
};

const refused = (base: object, over: object) => {
  const { code, message } = errorOf(() => validateConfig(mergeConfigs(base, over)));
  expect(code).toBe('ERR_HPFORMER_CONFIG');
  return message;
};

describe('validateConfig', () => {
  test('completes a health configuration', () => {
    expect(validateConfig(health)).toEqual({
      embedding: { kind: 'features', size: 3 },
      positions: { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false },
      embeddingNorm: false,
      hidden: 8,
      heads: 2,
      layers: 1,
      tiedLayers: false,
      activation: 'relu',
      norm: 'layernorm',
      segments: { rule: 'upstream', times: 1, pooling: 'mean', steps: null, over: 'padded' },
      readout: 'step',
      sequences: 1,
      head: { layers: [], labels: 1, bias: true, link: 'sigmoid' },
    });
  });

  test("completes a long-range configuration with the other family's defaults", () => {
    const config = validateConfig(text);
    expect(config.positions).toEqual({ kind: 'sinusoidal', layout: 'halves', scaleInput: true });
    expect(config.embedding).toEqual({ kind: 'tokens', vocabulary: 9, padding: null });
    expect(config.readout).toBe('mean');
    expect(config.head).toEqual({ layers: [], labels: 2, bias: false, link: 'softmax' });
  });

  test('is deep-frozen, a copy, and stable under another pass', () => {
    const config = validateConfig(text);
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.segments)).toBe(true);
    expect(Object.isFrozen(config.head.layers)).toBe(true);
    expect(config.embedding).not.toBe(text.embedding);
    expect(validateConfig(config)).toEqual(config);
    expect(JSON.stringify(validateConfig(config))).toBe(JSON.stringify(config));
  });

  test('resolves upstream spellings', () => {
    const config = validateConfig({
      ...text,
      activation: 'gelu_accurate',
      norm: 'syncbatchnorm',
      head: { labels: 2, layers: [{ size: 4, activation: 'gelu_fast' }] },
    });
    expect(config.activation).toBe('gelu_tanh');
    expect(config.norm).toBe('batchnorm');
    expect(config.head.layers).toEqual([{ size: 4, activation: 'gelu_tanh' }]);
  });

  test.each([null, undefined, 3, 'mortality', [], new Float32Array(2)])('refuses %p', (value) => {
    expect(errorOf(() => validateConfig(value)).code).toBe('ERR_HPFORMER_CONFIG');
  });

  test('keys of a prototype are none', () => {
    expect(errorOf(() => validateConfig(Object.create(health))).message).toMatch(
      /^config: expected "embedding", "hidden"/,
    );
    const kind = Object.assign(Object.create({ kind: 'features' }), { size: 3 });
    expect(errorOf(() => validateConfig({ ...health, embedding: kind })).message).toMatch(
      /config\.embedding\.kind: expected .* got undefined/,
    );
    expect(errorOf(() => validateConfig({ ...health, embedding: { kind: 'toString' } })).message).toMatch(
      /config\.embedding\.kind/,
    );
    expect(errorOf(() => validateConfig({ ...health, embedding: { kind: 3 } })).message).toMatch(/kind: .* got 3/);
  });

  test('two sequences, the narrowest half tables, padding as the last id', () => {
    expect(validateConfig({ ...text, sequences: 2 }).sequences).toBe(2);
    expect(validateConfig({ ...text, embedding: { kind: 'scalar' }, sequences: 2 }).sequences).toBe(2);
    expect(validateConfig({ ...text, hidden: 4 }).hidden).toBe(4);
    expect(validateConfig({ ...text, embedding: { kind: 'tokens', vocabulary: 9, padding: 8 } })).toBeDefined();
    expect(validateConfig({ ...text, segments: { rule: 'paper' } }).segments.times).toBe(1);
    expect(validateConfig({ ...text, head: { labels: 2, names: ['a', 'b'] } }).head.names).toEqual(['a', 'b']);
    expect(Object.isFrozen(validateConfig({ ...text, head: { labels: 2, names: ['a', 'b'] } }).head.names)).toBe(true);
  });

  test('shows nested and cyclic values without recursion', () => {
    const cyclic: unknown[] = [1];
    cyclic.push(cyclic);
    const deep = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`);
    expect(refused(health, { hidden: cyclic })).toMatch(/got \[1, \[\.\.\.\]\]$/);
    expect(refused(health, { hidden: deep })).toMatch(/config\.hidden: expected an integer/);
    expect(refused(health, { embedding: deep })).toMatch(/config\.embedding: expected an object/);
  });

  test('names unknown keys and where they are', () => {
    expect(refused(health, { hiden: 8 })).toMatch(/^config: unknown key "hiden"; known are embedding, /);
    expect(refused(health, { segments: { rules: 'paper', k: 1 } })).toMatch(
      /config\.segments: unknown keys "rules", "k"/,
    );
    expect(refused(health, { embedding: { vocabulary: 3 } })).toMatch(/config\.embedding: unknown key "vocabulary"/);
    expect(refused(health, JSON.parse('{"head":{"__proto__":1}}'))).toMatch(/unknown key "__proto__"/);
    expect(refused(text, { head: { layers: [{ size: 3, bias: true }] } })).toMatch(
      /config\.head\.layers\[0\]: unknown key "bias"/,
    );
  });

  test('names every missing key', () => {
    expect(errorOf(() => validateConfig({})).message).toMatch(
      /"embedding", "hidden", "heads", "layers", "activation", "head"/,
    );
    expect(errorOf(() => validateConfig({ ...health, head: {} })).message).toMatch(
      /config\.head: expected "labels", "link"/,
    );
    const { activation: _, ...silent } = text;
    expect(errorOf(() => validateConfig(silent)).message).toBe('config: expected "activation", got no such key');
  });

  test.each<[object, RegExp]>([
    [{ hidden: 0 }, /config\.hidden: expected an integer from 1 to 65536, got 0/],
    [{ hidden: 65537 }, /config\.hidden/],
    [{ hidden: 8.5 }, /config\.hidden/],
    [{ hidden: '8' }, /config\.hidden: .* got "8"/],
    [{ hidden: Number.NaN }, /config\.hidden: .* got NaN/],
    [{ heads: 3 }, /config\.heads: expected a divisor of hidden \(8\), got 3/],
    [{ layers: 4097 }, /config\.layers/],
    [{ tiedLayers: 1 }, /config\.tiedLayers: expected true or false, got 1/],
    [{ embeddingNorm: null }, /config\.embeddingNorm/],
    [{ activation: 'tanh' }, /config\.activation: expected "relu" or .* got "tanh"/],
    [{ activation: 'toString' }, /config\.activation/],
    [{ norm: 'none' }, /config\.norm/],
    [{ positions: 'sinusoidal' }, /config\.positions: expected an object/],
    [
      { positions: { kind: 'rotary' } },
      /config\.positions\.kind: expected "sinusoidal" or "learned" or "none", got "rotary"/,
    ],
    [{ positions: { kind: 'learned' } }, /config\.positions: expected "maximum"/],
    [{ positions: { kind: 'learned', maximum: 0 } }, /config\.positions\.maximum/],
    [{ segments: { times: 0 } }, /config\.segments\.times/],
    [{ segments: { rule: 'paper', times: 2 } }, /config\.segments\.times: expected 1 with rule 'paper', got 2/],
    [{ segments: { steps: 0 } }, /config\.segments\.steps: .* or null, got 0/],
    [{ segments: { over: 'batch' } }, /config\.segments\.over/],
    [{ readout: 'last' }, /config\.readout/],
    [{ sequences: 3 }, /config\.sequences: expected 1 or 2, got 3/],
    [{ sequences: 2 }, /config\.readout: expected 'mean' with two sequences, got "step"/],
    [{ sequences: 2, readout: 'mean' }, /config\.embedding\.kind/],
    [{ head: { labels: 0 } }, /config\.head\.labels/],
    [{ head: { bias: 'yes' } }, /config\.head\.bias/],
    [{ head: { link: 'argmax' } }, /config\.head\.link/],
    [{ head: { layers: {} } }, /config\.head\.layers: expected an array/],
    [{ head: { layers: [4] } }, /config\.head\.layers\[0\]: expected an object, got 4/],
    [{ head: { names: ['a', 'b'] } }, /config\.head\.names: expected 1 names/],
    [{ head: { labels: 2, names: ['a', 'a'] } }, /config\.head\.names: expected distinct names, got "a"/],
    [{ head: { names: [''] } }, /config\.head\.names\[0\]/],
  ])('refuses %j', (over, message) => {
    expect(refused(health, over)).toMatch(message);
  });

  test('refuses padding outside the vocabulary and too narrow half tables', () => {
    expect(refused(text, { embedding: { padding: 9 } })).toMatch(
      /config\.embedding\.padding: expected an id below vocabulary \(9\), got 9/,
    );
    expect(refused(text, { hidden: 3, heads: 1 })).toMatch(/config\.hidden: expected at least 4/);
    expect(
      validateConfig({ ...text, hidden: 3, heads: 1, positions: { kind: 'sinusoidal', layout: 'interleaved' } }).hidden,
    ).toBe(3);
  });

  test(`any JSON value is a configuration or an error of ours (SEED=${seed})`, () => {
    const outcome = (value: unknown) => {
      try {
        validateConfig(value);
      } catch (error) {
        if (!(error instanceof HPformerError) || error.code !== 'ERR_HPFORMER_CONFIG') throw error;
      }
    };
    fc.assert(fc.property(fc.jsonValue(), outcome), { seed, numRuns: 2000 });
    const paths = [
      'embedding',
      'positions',
      'hidden',
      'heads',
      'layers',
      'activation',
      'norm',
      'segments',
      'readout',
      'head',
      'sequences',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...(Object.keys(presets) as PresetName[])),
        fc.constantFrom(...paths),
        fc.jsonValue(),
        (name, key, value) => outcome({ ...presets[name](), [key]: value }),
      ),
      { seed, numRuns: 5000 },
    );
  });
});

describe('mergeConfigs', () => {
  test('lays keys over keys, replaces lists, ignores undefined, drops the keys of another kind', () => {
    const base = {
      embedding: { kind: 'tokens', vocabulary: 9, padding: 1 },
      head: { layers: [{ size: 1 }], labels: 2 },
      hidden: 4,
    };
    const merged = mergeConfigs(
      base,
      { embedding: { kind: 'scalar' }, head: { layers: [] }, hidden: undefined },
      undefined,
      null,
    );
    expect(JSON.parse(JSON.stringify(merged))).toEqual({
      embedding: { kind: 'scalar' },
      head: { layers: [], labels: 2 },
      hidden: 4,
    });
    expect(base.embedding.vocabulary).toBe(9);
  });

  test('a kind that is the same, or that only one side has, keeps the keys below it', () => {
    const base = { embedding: { kind: 'tokens', vocabulary: 9 }, positions: { maximum: 3 } };
    const over = { embedding: { kind: 'tokens', padding: 1 }, positions: { kind: 'learned' } };
    expect(JSON.parse(JSON.stringify(mergeConfigs(base, over)))).toEqual({
      embedding: { kind: 'tokens', vocabulary: 9, padding: 1 },
      positions: { maximum: 3, kind: 'learned' },
    });
    expect(JSON.parse(JSON.stringify(mergeConfigs(base, { embedding: { padding: 2 } })))).toEqual({
      ...base,
      embedding: { ...base.embedding, padding: 2 },
    });
    // A list, a typed array or nothing is a value, not an object to go into.
    const bytes = new Uint8Array(2);
    expect(mergeConfigs({ a: { b: 1 } }, { a: [1] }).a).toEqual([1]);
    expect(mergeConfigs({ a: { b: 1 } }, { a: null }).a).toBeNull();
    expect(mergeConfigs({ a: { b: 1 } }, { a: bytes }).a).toBe(bytes);
    expect(mergeConfigs({ a: 3 }, { a: { b: 1 } }).a).toEqual(Object.assign(Object.create(null), { b: 1 }));
  });

  test('sixteen levels of objects below the first, and no more', () => {
    const nested = (levels: number) => JSON.parse(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`);
    expect(() => mergeConfigs(nested(17))).not.toThrow();
    expect(() => mergeConfigs(nested(18))).toThrow('config: expected at most 16 levels of objects, got more');
  });

  test('never touches prototypes and bounds depth', () => {
    mergeConfigs({}, JSON.parse('{"__proto__":{"polluted":1}}'));
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    const deep = JSON.parse(`${'{"a":'.repeat(100)}1${'}'.repeat(100)}`);
    expect(errorOf(() => mergeConfigs(deep)).code).toBe('ERR_HPFORMER_CONFIG');
    expect(errorOf(() => mergeConfigs('x')).code).toBe('ERR_HPFORMER_CONFIG');
  });
});
