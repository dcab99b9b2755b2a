import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { initialWeights } from '../../../src/checkpoint/init';
import {
  type Checkpoint,
  checkpointKey,
  loadCheckpoint,
  loadCheckpointFile,
  parseCheckpoint,
} from '../../../src/checkpoint/load';
import { parameterShapes } from '../../../src/checkpoint/names';
import { type WrittenTensor, writeSafetensors } from '../../../src/checkpoint/safetensors';
import { saveCheckpoint, serializeCheckpoint } from '../../../src/checkpoint/save';
import type { StoredTensor } from '../../../src/checkpoint/tensors';
import { presets } from '../../../src/config/presets';
import type { HPformerConfig } from '../../../src/config/types';
import { validateConfig } from '../../../src/config/validate';
import { HPformerError } from '../../../src/errors';
import { seed } from '../../seed';
import { floats } from './build';
import { bytesOf, cases, configOf, errorOf, fixture, folder, rejectionOf, valuesOf } from './support';

/** A state dict as a safetensors file. */
const asFile = (state: ReadonlyMap<string, StoredTensor>, metadata: Record<string, string> = {}) =>
  writeSafetensors(state as ReadonlyMap<string, WrittenTensor>, metadata);

const weightsOf = (checkpoint: Checkpoint) =>
  new Map([...checkpoint.weights].map(([name, { data }]) => [name, [...data]]));

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'hpformer-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

describe('published state dicts', () => {
  test.each(cases)('%s has every parameter of its configuration', (name) => {
    const { state, metadata } = fixture(name);
    const config = configOf(metadata);
    const { weights, config: complete, parameterCount } = parseCheckpoint(asFile(state), config);
    expect(complete).toEqual(config);
    expect([...weights.keys()]).toEqual([...parameterShapes(config).keys()]);
    const dead = new Set<string>(JSON.parse(metadata.unused_params!));
    const live = [...state].filter(([key]) => !dead.has(key));
    const used = live.reduce((sum, [, { dims }]) => sum + dims.reduce((a, b) => a * b, 1), 0);
    expect(parameterCount.used).toBe(used);
    // Every value arrives once: the multiset of all values is the file's.
    const sorted = (values: number[]) => Float64Array.from(values).sort();
    expect(sorted([...weightsOf({ weights } as Checkpoint).values()].flat())).toEqual(
      sorted(live.flatMap(([, item]) => valuesOf(item))),
    );
  });

  test('upstream names arrive where they belong', () => {
    const { state, metadata } = fixture('lra_learned_pos_image');
    const { weights } = parseCheckpoint(asFile(state), configOf(metadata));
    const pairs: [string, string][] = [
      ['embedding.bias', 'encoder.encoder.embed_tokens.bias'],
      ['positions.weight', 'encoder.encoder.embed_positions.weight'],
      ['tdhp.fusion.weight', 'encoder.encoder.tdhp.fusion_lin.weight'],
      ['layers.1.output.weight', 'encoder.encoder.layers.1.self_attn.output_linear.weight'],
      ['layers.1.norm1.mean', 'encoder.encoder.layers.1.self_attn_layer_norm.norm.running_mean'],
      ['layers.1.norm2.variance', 'encoder.encoder.layers.1.final_layer_norm.norm.running_var'],
      ['layers.0.feedForward.bias', 'encoder.encoder.layers.0.fc1.bias'],
      ['head.layers.0.weight', 'classifier.0.0.weight'],
      ['head.output.weight', 'sentence_projection_layer.weight'],
    ];
    for (const [ours, theirs] of pairs) expect([...weights.get(ours)!.data]).toEqual(valuesOf(state.get(theirs)!));
    const health = fixture('health_ihmp_small');
    const loaded = parseCheckpoint(asFile(health.state), configOf(health.metadata));
    expect([...loaded.weights.get('layers.0.norm2.bias')!.data]).toEqual(
      valuesOf(health.state.get('core_model.core.0.norm2.bias')!),
    );
    expect([...loaded.weights.get('layers.0.feedForward.weight')!.data]).toEqual(
      valuesOf(health.state.get('core_model.core.0.mlp1.weight')!),
    );
  });

  test('all files of a case give the same model', async () => {
    for (const [name, files] of [
      ['ckpt_health_ihmp', ['ckpt_health_ihmp.zip.pt', 'ckpt_health_ihmp.legacy.pt']],
      ['ckpt_lra_text', ['ckpt_lra_text.zip.pt', 'ckpt_lra_text.fairseq_fp16.pt']],
    ] as const) {
      const { state, metadata } = fixture(name);
      const expected = parseCheckpoint(asFile(state), configOf(metadata));
      for (const file of files) {
        const got = await loadCheckpoint(join(folder, file), configOf(metadata));
        expect(weightsOf(got)).toEqual(weightsOf(expected));
        expect(got.key).toBe(expected.key);
      }
    }
  });
});

describe('inference', () => {
  test.each(cases)('%s needs only what no file can tell', (name) => {
    const { state, metadata } = fixture(name);
    const full = configOf(metadata);
    const { segments, heads, activation, layers, readout, head } = full;
    const asked =
      full.embedding.kind === 'features'
        ? {
            segments: { steps: segments.steps },
            readout,
            ...(head.labels > 1 && readout === 'steps' && { head: { link: head.link } }),
          }
        : {
            heads,
            activation,
            segments: { pooling: segments.pooling, times: segments.times },
            head: { layers: head.layers },
            ...((full.tiedLayers || layers === 1) && { layers }),
          };
    expect(parseCheckpoint(asFile(state), asked).config).toEqual(full);
  });

  test('asks by name for the rest', () => {
    const asked = (name: string, config?: object) => {
      const { code, message } = errorOf(() => parseCheckpoint(asFile(fixture(name).state), config));
      expect(code).toBe('ERR_HPFORMER_CONFIG');
      return message.match(/tell (.*): give them/)![1]!.replace(/ \([^)]*\)/g, '');
    };
    expect(asked('lra_text_ln_mean')).toBe('heads, activation, segments.pooling');
    expect(asked('lra_tied_layers')).toBe('heads, layers, activation, segments.pooling');
    expect(asked('lra_text_ln_mean', { heads: 4, activation: 'silu' })).toBe('segments.pooling');
    expect(asked('health_ihmp_small')).toBe('segments.steps, readout');
    expect(asked('health_los_small', { readout: 'steps', segments: { steps: 28 } })).toBe('head.link');
    const { state } = fixture('lra_text_ln_mean');
    state.delete('encoder.encoder.embed_positions._float_tensor');
    const { message } = errorOf(() =>
      parseCheckpoint(asFile(state), { heads: 4, activation: 'silu', segments: { pooling: 'mean' } }),
    );
    expect(message).toMatch(/cannot tell positions \(kind sinusoidal/);
  });

  /** Canonical names without metadata: what the file alone does not tell has to be asked for. */
  const bare = (config: HPformerConfig): Uint8Array =>
    writeSafetensors(
      new Map(
        [...initialWeights(config, 1)].map(([name, { dims, data }]): [string, WrittenTensor] => [
          name,
          { type: 'F32', dims, bytes: new Uint8Array(data.buffer) },
        ]),
      ),
    );

  test('a norm of one number is a scale norm, unless there is one channel only', () => {
    const norm = (hidden: number, name: 'rmsnorm' | 'scalenorm') => {
      const config = presets.listops({ hidden, heads: 1, layers: 2, norm: name, positions: { kind: 'none' } });
      const { norm: _, ...known } = config;
      return parseCheckpoint(bare(config), known).config.norm;
    };
    expect([norm(4, 'scalenorm'), norm(4, 'rmsnorm'), norm(1, 'rmsnorm')]).toEqual(['scalenorm', 'rmsnorm', 'rmsnorm']);
  });

  test.each<[stored: number, known: object, layers: number | undefined, tied: boolean]>([
    [1, {}, undefined, false],
    [1, { tiedLayers: false }, 1, false],
    [1, { layers: 1 }, 1, false],
    [1, { layers: 2 }, 2, true],
    [1, { layers: 3 }, 3, true],
    [1, { tiedLayers: true }, undefined, true],
    [1, { tiedLayers: true, layers: 3 }, 3, true],
    [2, {}, 2, false],
    [2, { tiedLayers: false }, 2, false],
    [3, { layers: 3 }, 3, false],
  ])('%d stored layers beside %j', (stored, said, layers, tied) => {
    const config = presets.listops({ hidden: 8, heads: 2, layers: stored });
    const { layers: _, tiedLayers: __, ...known } = config;
    const parse = () => parseCheckpoint(bare(config), { ...known, ...said }).config;
    if (layers === undefined) expect(errorOf(parse).message).toMatch(/cannot tell layers/);
    else expect(parse()).toMatchObject({ layers, tiedLayers: tied });
  });

  test("fairseq's arguments tell some of it", () => {
    const { message } = errorOf(() => parseCheckpoint(bytesOf('ckpt_lra_text.fairseq_fp16.pt')));
    expect(message).toMatch(/tell heads .*, activation .*, segments\.pooling/);
    expect(
      parseCheckpoint(bytesOf('ckpt_lra_text.fairseq_fp16.pt'), {
        heads: 4,
        activation: 'silu',
        segments: { pooling: 'mean' },
      }).config.segments.times,
    ).toBe(1);
  });

  test('options beat the metadata, which beats inference', () => {
    const config = presets.listops({
      hidden: 8,
      heads: 2,
      layers: 2,
      head: { layers: [{ size: 5, activation: 'relu' }] },
    });
    const file = serializeCheckpoint(config, initialWeights(config, 1), { note: 'kept' });
    const plain = parseCheckpoint(file);
    expect(plain.config).toEqual(config);
    expect(plain.metadata).toEqual({ note: 'kept' });
    expect(parseCheckpoint(file, { segments: { over: 'valid' }, heads: 4 }).config).toEqual({
      ...config,
      heads: 4,
      segments: { ...config.segments, over: 'valid' },
    });
    expect(errorOf(() => parseCheckpoint(file, { hidden: 16 })).message).toMatch(
      /embedding\.weight: expected \[25, 16\], got \[25, 8\]/,
    );
  });

  test('canonical names without metadata are understood too', () => {
    const config = presets.mortality({ hidden: 16, layers: 3 });
    const tensors = new Map<string, WrittenTensor>();
    for (const [name, { dims, data }] of initialWeights(config, 1)) {
      tensors.set(name, { type: 'F32', dims, bytes: new Uint8Array(data.buffer) });
    }
    expect(errorOf(() => parseCheckpoint(writeSafetensors(tensors))).message).toMatch(
      /tell heads .*, activation .*, positions .*, segments\.pooling .*, segments\.steps .*, readout .*, head\.link/,
    );
    const asked = {
      heads: 8,
      activation: 'relu',
      positions: config.positions,
      segments: config.segments,
      readout: 'step',
      head: { link: 'sigmoid' },
    };
    expect(parseCheckpoint(writeSafetensors(tensors), asked).config).toEqual(config);
  });

  test('names behind the `module.` of a data-parallel wrapper are understood', () => {
    const { state, metadata } = fixture('health_ihmp_small');
    const wrapped = new Map([...state].map(([key, item]) => [`module.${key}`, item]));
    expect(parseCheckpoint(asFile(wrapped), configOf(metadata)).key).toBe(
      parseCheckpoint(asFile(state), configOf(metadata)).key,
    );
  });
});

describe('refusals', () => {
  const { state, metadata } = fixture('lra_image_bn_max');
  const config = configOf(metadata);
  const changed = (change: (copy: Map<string, StoredTensor>) => void, over: unknown = config) => {
    const copy = new Map(state);
    change(copy);
    return errorOf(() => parseCheckpoint(asFile(copy), over, 'x.pt'));
  };
  const key = 'encoder.encoder.tdhp.fusion_lin.bias';

  test('unknown tensors are listed, dead ones are not', () => {
    const { code, message } = changed((copy) =>
      copy.set('extra.weight', state.get(key)!).set('encoder.encoder.layers.0.fc2.weight', state.get(key)!),
    );
    expect(code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect(message).toMatch(
      /^x\.pt: unknown tensors (encoder\.encoder\.layers\.0\.fc2\.weight, extra\.weight|extra\.weight, encoder\.encoder\.layers\.0\.fc2\.weight)$/,
    );
  });

  test.each([
    'core_model.encoderlayer.mlp3.weight',
    'core_model.core.00.mlp1.weight',
    'core_model.core.0.mlp1.weigth',
    'core_model.embed_func.weight.x',
    'core_model.toString',
    'layers.0.output.weight',
  ])('%s is unknown in a health file', (name) => {
    const health = fixture('health_ihmp_small');
    health.state.set(name, health.state.get('linear.bias')!);
    expect(errorOf(() => parseCheckpoint(asFile(health.state), configOf(health.metadata))).message).toContain(
      `unknown tensors ${name}`,
    );
  });

  test('a plain norm layout has no running statistics', () => {
    const plain = fixture('lra_listops');
    plain.state.set('encoder.encoder.layers.0.final_layer_norm.running_mean', plain.state.get(key)!);
    expect(errorOf(() => parseCheckpoint(asFile(plain.state), configOf(plain.metadata))).message).toMatch(
      /unknown tensors .*final_layer_norm\.running_mean/,
    );
  });

  test('missing tensors are listed', () => {
    const { code, message } = changed((copy) => copy.delete(key) && copy.delete('classifier.0.0.bias'));
    expect(code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect(message).toBe('x.pt: missing tensors tdhp.fusion.bias, head.layers.0.bias');
  });

  test.each(['linear.bias', 'core_model.embed_func.weight', 'core_model.core.0.norm1.weight'])(
    '%s alone is missing',
    (name) => {
      const health = fixture('health_ihmp_small');
      expect(health.state.delete(name)).toBe(true);
      expect(errorOf(() => parseCheckpoint(asFile(health.state), configOf(health.metadata)))).toMatchObject({
        code: 'ERR_HPFORMER_CHECKPOINT',
        message: expect.stringMatching(/: missing tensors [\w.]+$/),
      });
    },
  );

  test('one tensor that the configuration does not take', () => {
    const health = fixture('health_ihmp_small');
    const from = configOf(health.metadata);
    const { message } = errorOf(() =>
      parseCheckpoint(asFile(health.state), { ...from, head: { ...from.head, bias: false } }),
    );
    expect(message).toMatch(/: tensors that the configuration does not take: linear\.bias$/);
  });

  test('tensors that the configuration does not take are listed', () => {
    const { message } = changed(() => undefined, { ...config, layers: 2 });
    expect(message).toMatch(/tensors that the configuration does not take: .*layers\.2\.fc1\.bias/);
  });

  test('wrong shapes are listed', () => {
    const bias = { type: 'F32' as const, dims: [3], bytes: floats(1, 2, 3) };
    expect(changed((copy) => copy.set(key, bias))).toEqual({
      code: 'ERR_HPFORMER_CHECKPOINT',
      message: `x.pt: ${key}: expected [32], got [3]`,
    });
  });

  test('the same parameter under two names is refused', () => {
    const both = fixture('lra_listops');
    both.state.set(
      'encoder.encoder.layers.0.final_layer_norm.norm.bias',
      both.state.get('encoder.encoder.layers.0.final_layer_norm.bias')!,
    );
    expect(errorOf(() => parseCheckpoint(asFile(both.state), configOf(both.metadata))).message).toMatch(
      /are the same parameter \(layers\.0\.norm2\.bias\)/,
    );
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])('a weight of %p names its tensor', (value) => {
    const bytes = floats(...Array.from({ length: 32 }, (_, i) => (i === 5 ? value : i)));
    const { code, message } = changed((copy) => copy.set(key, { type: 'F32', dims: [32], bytes }));
    expect(code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect(message).toBe(`x.pt: ${key}: expected finite values, got ${value} at element 5`);
  });

  test('a negative variance is refused; dead tensors may hold anything', () => {
    const name = 'encoder.encoder.layers.0.final_layer_norm.norm.running_var';
    const bytes = floats(...Array.from({ length: 32 }, (_, i) => i - 1));
    expect(changed((copy) => copy.set(name, { type: 'F32', dims: [32], bytes })).message).toMatch(
      /running_var: expected variances of at least 0, got -1 at element 0/,
    );
    const zeros = { type: 'F32' as const, dims: [32], bytes: floats(...new Float32Array(32)) };
    expect(parseCheckpoint(asFile(new Map(state).set(name, zeros)), config).weights.size).toBeGreaterThan(0);
    const copy = new Map(state).set('encoder.encoder.embed_positions._float_tensor', {
      type: 'F32',
      dims: [1],
      bytes: floats(Number.NaN),
    });
    expect(parseCheckpoint(asFile(copy), config).weights.size).toBeGreaterThan(0);
  });

  test('integer weights are refused', () => {
    const item = { type: 'I64' as const, dims: [32], bytes: new Uint8Array(256) };
    expect(changed((copy) => copy.set(key, item)).message).toMatch(/expected floating-point elements/);
  });

  test.each([3, 'mortality', []])('a config of %p is refused', (value) => {
    expect(changed(() => undefined, value).code).toBe('ERR_HPFORMER_CONFIG');
  });

  test('unknown keys of options.config are named', () => {
    expect(changed(() => undefined, { ...config, droput: 0 }).message).toMatch(/unknown key "droput"/);
  });

  test.each<[string, RegExp]>([
    ['{', /expected JSON/],
    ['3', /expected \{ "version": 1/],
    ['null', /expected \{ "version": 1/],
    ['{"config":{}}', /expected a format version, got undefined/],
    ['{"version":2,"config":{},"more":1}', /format version 2 was written by a newer hpformer; this one reads up to 1/],
    ['{"version":1,"config":{},"more":1}', /unknown key "more"/],
    ['{"version":1,"config":[]}', /expected a config object/],
    ['{"version":1.5,"config":{}}', /expected a format version, got 1\.5/],
  ])('metadata %s', (text, message) => {
    const error = errorOf(() => parseCheckpoint(asFile(state, { 'hpformer.config': text }), config));
    expect(error.code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect(error.message).toMatch(message);
  });

  test('no tensors at all', () => {
    expect(errorOf(() => parseCheckpoint(writeSafetensors(new Map()), config)).message).toMatch(
      /expected tensors, got none/,
    );
  });

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array(0)],
    ['text', Buffer.from('hello, this is no checkpoint')],
    ['a detached buffer', detached()],
    ['gzip', Buffer.from('1f8b0800000000000003', 'hex')],
    ['a bare pickle', Buffer.from('80024e2e', 'hex')],
  ])('%s is no checkpoint', (_, bytes) => {
    expect(errorOf(() => parseCheckpoint(bytes, config)).code).toBe('ERR_HPFORMER_FILE');
  });

  function detached(): Uint8Array {
    const bytes = bytesOf('lra_L1.safetensors');
    structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
    return bytes;
  }
});

describe('sources', () => {
  const config = configOf(fixture('ckpt_health_ihmp').metadata);
  const file = join(folder, 'ckpt_health_ihmp.zip.pt');

  test('path, file: URL, its text, bytes and shared bytes are the same model', async () => {
    const bytes = bytesOf('ckpt_health_ihmp.zip.pt');
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    const offset = new Uint8Array(bytes.length + 3);
    offset.set(bytes, 3);
    const { key } = await loadCheckpointFile(file, config);
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    for (const source of [
      file,
      pathToFileURL(file),
      String(pathToFileURL(file)),
      bytes,
      Buffer.from(bytes),
      shared,
      offset.subarray(3),
    ]) {
      expect((await loadCheckpoint(source, config)).key).toBe(key);
    }
  });

  test('bytes are read before the call returns and not changed', async () => {
    const bytes = bytesOf('ckpt_health_ihmp.zip.pt');
    const before = Buffer.from(bytes);
    const loading = loadCheckpoint(bytes, config);
    expect(Buffer.compare(bytes, before)).toBe(0);
    bytes.fill(0);
    expect((await loading).key).toBe((await loadCheckpoint(file, config)).key);
  });

  test.each([
    ['https://example.org/model.pt', /nothing is fetched/],
    ['s3://bucket/model.pt', /nothing is fetched/],
    [new URL('https://example.org/model.pt'), /file: URL/],
    [new URL('data:,x'), /file: URL/],
    ['file://host/model.pt', /file: URL/],
    ['', /expected a path/],
    ['a\0b', /expected a path/],
    [join(folder, 'absent.pt'), /cannot be read \(ENOENT/],
    [folder, /expected a file, got a directory/],
    ['/dev/null', /expected a file, got something else/],
  ])('%s is refused', async (source, message) => {
    const error = await rejectionOf(loadCheckpoint(source, config));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });

  test.each([3, null, undefined, {}, new ArrayBuffer(8), new Float32Array(8)])('%p is no source', async (source) => {
    expect((await rejectionOf(loadCheckpoint(source as never, config))).code).toBe('ERR_HPFORMER_TYPE');
  });

  test(`any change of a small file gives a model or an error of ours (SEED=${seed})`, () => {
    const small = presets.listops({
      embedding: { vocabulary: 3 },
      hidden: 4,
      heads: 1,
      layers: 1,
      head: { layers: [], labels: 1 },
    });
    const whole = serializeCheckpoint(small, initialWeights(small, 1));
    for (let length = 0; length < whole.length; length++) {
      expect(errorOf(() => parseCheckpoint(whole.subarray(0, length))).code).toMatch(
        /^ERR_HPFORMER_(FILE|CHECKPOINT|CONFIG)$/,
      );
    }
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: whole.length - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (changes) => {
          const bytes = whole.slice();
          for (const [at, value] of changes) bytes[at] = value;
          try {
            parseCheckpoint(bytes);
          } catch (error) {
            if (!(error instanceof HPformerError)) throw error;
          }
        },
      ),
      { seed, numRuns: 3000 },
    );
  });
});

describe('saveCheckpoint', () => {
  const config = validateConfig(
    presets.pathfinder({ hidden: 8, layers: 2, head: { layers: [{ size: 3, activation: 'gelu' }] } }),
  );

  test('what it writes is loaded back whole, float64 too', async () => {
    const weights = initialWeights(config, 7);
    weights.set('embedding.weight', { dims: [8], data: new Float64Array(8).fill(Math.PI) });
    const path = join(directory, 'saved.safetensors');
    await saveCheckpoint(path, config, weights, { provenance: 'a test' });
    const loaded = await loadCheckpoint(path);
    expect(loaded.config).toEqual(config);
    expect(loaded.weights).toEqual(weights);
    expect(loaded.key).toBe(checkpointKey(config, weights));
    expect(loaded.metadata).toEqual({ provenance: 'a test' });
    expect(Buffer.compare(readFileSync(path), serializeCheckpoint(config, weights, { provenance: 'a test' }))).toBe(0);
  });

  test('the key changes with any value, shape or configuration', () => {
    const keys = [config, presets.pathfinder({ ...config, segments: { over: 'valid' } })].flatMap((item) =>
      [1, 2].map((start) => checkpointKey(item, initialWeights(item, start))),
    );
    expect(new Set(keys).size).toBe(4);
  });

  test('replaces a file as a whole and leaves nothing behind when it fails', async () => {
    const path = join(directory, 'replaced.safetensors');
    writeFileSync(path, 'old');
    await saveCheckpoint(pathToFileURL(path), config, initialWeights(config, 1));
    expect((await loadCheckpoint(path)).config).toEqual(config);
    const { code } = await rejectionOf(
      saveCheckpoint(join(directory, 'absent', 'x'), config, initialWeights(config, 1)),
    );
    expect(code).toBe('ERR_HPFORMER_FILE');
    expect((await rejectionOf(saveCheckpoint(directory, config, initialWeights(config, 1)))).code).toBe(
      'ERR_HPFORMER_FILE',
    );
    expect(readdirSync(directory).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('refuses weights that are not those of the configuration', () => {
    const weights = initialWeights(config, 1);
    weights.delete('tdhp.fusion.bias');
    expect(errorOf(() => serializeCheckpoint(config, weights)).message).toBe(
      'tdhp.fusion.bias: expected [8], got no tensor',
    );
    weights.set('tdhp.fusion.bias', { dims: [4], data: new Float32Array(4) });
    expect(errorOf(() => serializeCheckpoint(config, weights)).code).toBe('ERR_HPFORMER_CHECKPOINT');
    weights
      .set('tdhp.fusion.bias', { dims: [8], data: new Float32Array(8) })
      .set('other', { dims: [1], data: new Float32Array(1) });
    expect(errorOf(() => serializeCheckpoint(config, weights)).message).toMatch(
      /other: the configuration has no such tensor/,
    );
  });
});
