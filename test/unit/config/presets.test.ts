import { parameterCount, parameterShapes } from '../../../src/checkpoint/names';
import { configJsonSchema, configRows } from '../../../src/config/describe';
import { type PresetName, presets } from '../../../src/config/presets';
import { validateConfig } from '../../../src/config/validate';
import { errorOf } from '../checkpoint/support';

const names = Object.keys(presets) as PresetName[];

describe('presets', () => {
  // The published logs' own counts (reference 3.4).
  test.each<[PresetName, number]>([
    ['listops', 394720],
    ['text', 770816],
    ['retrieval', 313088],
    ['image', 1276608],
    ['pathfinder', 200576],
  ])('%s has the %i parameters of its log', (name, count) => {
    expect(parameterCount(presets[name]()).trainable).toBe(count);
  });

  test('batchnorm reads running statistics that training does not move', () => {
    const { used, trainable } = parameterCount(presets.pathfinder());
    expect(used - trainable).toBe(4 * 2 * 2 * 128);
  });

  test.each(names)('%s is fresh, open to change, valid and takes overrides', (name) => {
    const config = presets[name]();
    expect(config).not.toBe(presets[name]());
    config.layers = 2;
    expect(presets[name]().layers).toBeGreaterThan(2);
    expect(validateConfig(presets[name]())).toEqual(presets[name]());
    const wider = presets[name]({ hidden: 64, segments: { over: 'valid' } });
    expect(wider).toEqual({ ...presets[name](), hidden: 64, segments: { ...presets[name]().segments, over: 'valid' } });
    expect(errorOf(() => presets[name]({ hiden: 3 } as object)).code).toBe('ERR_HPFORMER_CONFIG');
  });

  test('health presets have the published sizes', () => {
    expect(parameterShapes(presets.mortality()).get('embedding.weight')).toEqual([128, 76]);
    expect(presets.decompensation()).toMatchObject({
      readout: 'steps',
      segments: { steps: 504 },
      head: { labels: 1, link: 'sigmoid' },
    });
    expect(presets.lengthOfStay()).toMatchObject({ readout: 'steps', head: { labels: 10, link: 'softmax' } });
    expect(presets.phenotyping()).toMatchObject({ readout: 'step', head: { labels: 25, link: 'sigmoid' } });
  });
});

describe('presets, value by value', () => {
  // Reference section 4: 76 features, width 128, 8 heads, 8 layers; what differs is the readout, n_steps and the labels.
  test.each<[PresetName, string, number, number, string]>([
    ['mortality', 'step', 48, 1, 'sigmoid'],
    ['decompensation', 'steps', 504, 1, 'sigmoid'],
    ['lengthOfStay', 'steps', 504, 10, 'softmax'],
    ['phenotyping', 'step', 48, 25, 'sigmoid'],
  ])('%s', (name, readout, steps, labels, link) => {
    expect(presets[name]()).toEqual({
      embedding: { kind: 'features', size: 76 },
      positions: { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false },
      embeddingNorm: false,
      hidden: 128,
      heads: 8,
      layers: 8,
      tiedLayers: false,
      activation: 'relu',
      norm: 'layernorm',
      segments: { rule: 'upstream', times: 1, pooling: 'mean', steps, over: 'padded' },
      readout,
      sequences: 1,
      head: { layers: [], labels, bias: true, link },
    });
  });

  // Reference section 3.4: vocabulary or none, width, layers, activation, norm, embedding norm, pooling, sequences, classifier.
  test.each<[PresetName, number | null, number, number, string, string, boolean, string, 1 | 2, [number, number]]>([
    ['listops', 25, 160, 6, 'silu', 'layernorm', false, 'mean', 1, [160, 10]],
    ['text', 169, 256, 4, 'silu', 'layernorm', true, 'mean', 1, [256, 2]],
    ['retrieval', 105, 128, 6, 'silu', 'layernorm', false, 'mean', 2, [256, 2]],
    ['image', null, 256, 8, 'silu', 'layernorm', true, 'mean', 1, [320, 10]],
    ['pathfinder', null, 128, 4, 'gelu', 'batchnorm', true, 'max', 1, [256, 2]],
  ])('%s', (name, vocabulary, hidden, layers, activation, norm, embeddingNorm, pooling, sequences, [size, labels]) => {
    expect(presets[name]()).toEqual({
      embedding: vocabulary === null ? { kind: 'scalar' } : { kind: 'tokens', vocabulary, padding: 1 },
      positions: { kind: 'sinusoidal', layout: 'halves', scaleInput: true },
      embeddingNorm,
      hidden,
      heads: 8,
      layers,
      tiedLayers: false,
      activation,
      norm,
      segments: { rule: 'upstream', times: 1, pooling, steps: null, over: 'padded' },
      readout: 'mean',
      sequences,
      head: { layers: [{ size, activation: 'gelu' }], labels, bias: false, link: 'softmax' },
    });
  });
});

describe('the schema', () => {
  const most = 2 ** 31 - 2;
  /** Every number and text of a configuration with its least and greatest value; other keys as these need them. */
  const bounded: [path: string, least: number, greatest: number, nullable: boolean, over: object][] = [
    ['embedding.size', 1, 2 ** 24, false, { embedding: { kind: 'features', size: 1 } }],
    ['embedding.vocabulary', 1, most, false, { embedding: { kind: 'tokens', vocabulary: 1, padding: null } }],
    ['embedding.padding', 0, most - 1, true, { embedding: { kind: 'tokens', vocabulary: most, padding: 0 } }],
    ['positions.maximum', 1, most, false, { positions: { kind: 'learned', maximum: 1 } }],
    ['hidden', 1, 65536, false, { heads: 1, positions: { kind: 'none' } }],
    ['heads', 1, 65536, false, { hidden: 65536 }],
    ['layers', 1, 4096, false, {}],
    ['segments.times', 1, 65536, false, {}],
    ['segments.steps', 1, most, true, {}],
    ['head.labels', 1, 2 ** 24, false, {}],
  ];
  const withValue = (over: object, path: string, value: unknown) => {
    const config = structuredClone({ ...presets.text(), ...over }) as unknown as Record<string, unknown>;
    const keys = path.split('.');
    const last = keys.pop()!;
    const place = keys.reduce<Record<string, unknown>>((at, key) => at[key] as Record<string, unknown>, config);
    place[last] = value;
    return config;
  };

  test.each(bounded)('%s from %d to %d', (path, least, greatest, nullable, over) => {
    for (const value of [least, greatest]) expect(() => validateConfig(withValue(over, path, value))).not.toThrow();
    for (const value of [least - 1, greatest + 1, least + 0.5, String(least), true])
      expect(errorOf(() => validateConfig(withValue(over, path, value))).message).toContain(`config.${path}: expected`);
    const asNull = () => validateConfig(withValue(over, path, null));
    if (nullable) expect(asNull).not.toThrow();
    else expect(asNull).toThrow(`config.${path}: expected an integer from`);
  });

  test('lists: 64 head layers of 1 to 65536, names of 1 to 200 letters', () => {
    const layer = (size: number) => ({ size, activation: 'relu' });
    const head = (over: object) => () =>
      validateConfig({ ...presets.text(), head: { ...presets.text().head, ...over } });
    expect(head({ layers: new Array(64).fill(layer(3)) })).not.toThrow();
    expect(head({ layers: new Array(65).fill(layer(3)) })).toThrow(
      'config.head.layers: expected an array of at most 64, got "65 items"',
    );
    for (const size of [1, 65536]) expect(head({ layers: [layer(size)] })).not.toThrow();
    for (const size of [0, 65537]) expect(head({ layers: [layer(size)] })).toThrow('config.head.layers[0].size');
    expect(head({ names: ['x'.repeat(200), 'b'] })).not.toThrow();
    for (const name of ['', 'x'.repeat(201), 3]) {
      expect(head({ names: [name, 'b'] })).toThrow('config.head.names[0]: expected a string of 1 to 200 characters');
    }
    expect(head({ names: ['a', 'b', 'c'] })).toThrow('expected 2 names (head.labels), got 3');
  });

  test('as JSON says the bounds, choices and kinds that validation has', () => {
    type Json = { [key: string]: Json } & {
      minimum: number;
      maximum: number;
      type: string | string[];
      enum: unknown[];
    };
    const schema = configJsonSchema() as unknown as Json;
    const at = (path: string) =>
      path.split('.').reduce<Json>((node, key) => {
        const inner = (node.properties as Json | undefined)?.[key];
        if (inner) return inner;
        const cases = node.oneOf as unknown as Json[];
        return cases.map((one) => one.properties![key]!).find((found) => found !== undefined)!;
      }, schema);
    for (const [path, least, greatest, nullable] of bounded) {
      const { type, minimum, maximum } = at(path);
      const padding = path === 'embedding.padding' ? 1 : 0;
      expect([path, type, minimum, maximum]).toEqual([
        path,
        nullable ? ['integer', 'null'] : 'integer',
        least,
        greatest + padding,
      ]);
    }
    expect(at('activation').enum).toEqual([
      'relu',
      'silu',
      'gelu',
      'gelu_tanh',
      'linear',
      'gelu_accurate',
      'gelu_fast',
    ]);
    expect(at('norm').enum).toContain('syncbatchnorm');
    expect(at('sequences').enum).toEqual([1, 2]);
    expect(at('tiedLayers')).toMatchObject({ type: 'boolean', default: false });
    expect(at('head.layers')).toMatchObject({ type: 'array', maxItems: 64, default: [] });
    expect((at('head.layers').items as Json).required).toEqual(['size']);
    expect(at('head.names').items).toMatchObject({ type: 'string', minLength: 1, maxLength: 200 });
    expect(at('head').required).toEqual(['labels']);
    expect(at('segments')).toMatchObject({ additionalProperties: false, required: [], default: {} });
    expect(schema).toMatchObject({
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      title: 'HPformerConfig',
      type: 'object',
      additionalProperties: false,
    });
    // A default that depends on the family is none in the JSON schema, and the key is not required there.
    expect(at('readout')).not.toHaveProperty('default');
    expect(at('positions').oneOf).toHaveLength(3);
    for (const one of at('positions').oneOf as unknown as Json[]) expect(one.additionalProperties).toBe(false);
  });

  test('as JSON has every key, and requires those without a default', () => {
    const schema = configJsonSchema() as {
      properties: Record<string, { oneOf?: { required: string[] }[] }>;
      required: string[];
    };
    expect(Object.keys(schema.properties)).toEqual(Object.keys(validateConfig(presets.text())));
    expect(schema.required).toEqual(['embedding', 'hidden', 'heads', 'layers', 'head']);
    expect(schema.properties.embedding!.oneOf!.map((item) => item.required)).toEqual([
      ['kind', 'size'],
      ['kind', 'vocabulary'],
      ['kind'],
    ]);
    expect(JSON.parse(JSON.stringify(schema))).toEqual(schema);
  });

  test('as rows documents every key with its type and default', () => {
    const rows = new Map(configRows().map((row) => [row.key, row]));
    expect(rows.get('segments.steps')).toMatchObject({ type: 'integer 1…2147483646 or null', default: 'null' });
    expect(rows.get('activation')!.default).toBe('features: "relu"; tokens, scalar: required');
    expect(rows.get('head.names')!.default).toBe('absent');
    expect(rows.get('hidden')!.default).toBe('required');
    expect(rows.get('embedding(tokens).padding')).toBeDefined();
    expect(rows.get('embedding')).toMatchObject({
      type: 'kind "features" or "tokens" or "scalar"',
      default: 'required',
    });
    expect(rows.get('positions(sinusoidal).layout')).toMatchObject({
      type: '"interleaved" or "halves"',
      default: 'features: "interleaved"; tokens, scalar: "halves"',
    });
    expect(rows.get('positions')!.default).toBe('{"kind":"sinusoidal"}');
    expect(rows.get('readout')!.default).toBe('features: required; tokens, scalar: "mean"');
    expect(rows.get('head.layers')).toMatchObject({ type: 'list of objects', default: '[]' });
    expect(rows.get('head.names')!.type).toBe('list of strings');
    expect(rows.get('sequences')).toMatchObject({ type: '1 or 2', default: '1' });
    expect(rows.get('tiedLayers')).toMatchObject({ type: 'boolean', default: 'false' });
    expect(rows.get('segments')).toMatchObject({ type: 'object', default: '{}' });
    expect(rows.get('hidden')!.type).toBe('integer 1…65536');
    expect([...rows.keys()].filter((key) => !key.includes('.'))).toEqual(Object.keys(validateConfig(presets.text())));
    expect(rows.get('head.layers[].size')).toBeDefined();
    for (const { doc } of rows.values()) expect(doc).toMatch(/\.$/);
  });
});
