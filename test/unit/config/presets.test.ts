import { parameterCount, parameterShapes, usedParameterCount } from '../../../src/checkpoint/names';
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
    expect(usedParameterCount(presets.pathfinder())).toBe(used);
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

describe('the schema', () => {
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
    expect(rows.get('head.layers[].size')).toBeDefined();
    for (const { doc } of rows.values()) expect(doc).toMatch(/\.$/);
  });
});
