import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { readSafetensors, type WrittenTensor, writeSafetensors } from '../../../src/checkpoint/safetensors';
import { bundleHash, bundleKeys } from '../../../src/checkpoint/seal';
import type { HPformerConfig } from '../../../src/config/types';
import { readBundle, writeBundle } from '../../../src/data/bundle';
import { findModel, loadModelDirectory, weightsOf, writeManifest } from '../../../src/data/modelDirectory';
import { openSource, scoreColumns } from '../../../src/data/recipes';
import { HPformerError } from '../../../src/errors';

const examples = path.join(__dirname, '../../../examples');
const model = path.join(examples, 'nafld-mortality');
const weights = path.join(model, 'model.safetensors');
const config: HPformerConfig = JSON.parse(fs.readFileSync(path.join(model, 'config.json'), 'utf8'));

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-bundle-'));
  for (const name of ['hpformer.json', 'config.json', 'features.json', 'model.safetensors']) {
    fs.copyFileSync(path.join(model, name), path.join(folder, name));
  }
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function failure(action: () => unknown): Promise<HPformerError> {
  const error = await Promise.resolve()
    .then(action)
    .then(
      () => undefined,
      (e) => e,
    );
  expect(error).toBeInstanceOf(HPformerError);
  return error as HPformerError;
}

const edit = (name: string, change: (text: string) => string) => {
  const file = path.join(folder, name);
  fs.writeFileSync(file, change(fs.readFileSync(file, 'utf8')));
};

/** The manifest with the hashes of what now lies in the folder. */
const rehash = () =>
  edit('hpformer.json', (text) => {
    const manifest = JSON.parse(text);
    for (const name of Object.keys(manifest.files)) {
      manifest.files[name] = createHash('sha256')
        .update(fs.readFileSync(path.join(folder, name)))
        .digest('hex');
    }
    return JSON.stringify(manifest);
  });

/** The weights file with other metadata, its own hash made to fit (or not). */
function rewrite(change: (content: Record<string, unknown>) => void, keepHash = false): Uint8Array {
  const { tensors, metadata } = readSafetensors(fs.readFileSync(weights));
  const content = JSON.parse(metadata[bundleKeys.content]!);
  change(content);
  const changed: Record<string, string> = { ...metadata, [bundleKeys.content]: JSON.stringify(content) };
  if (!keepHash) changed[bundleKeys.hash] = bundleHash({ tensors, metadata: changed });
  return writeSafetensors(tensors as unknown as Map<string, WrittenTensor>, changed);
}

describe('model directory', () => {
  test.each(['nafld-mortality', 'nafld-outcomes'])('%s is one unit, complete by itself', async (name) => {
    const found = await loadModelDirectory(path.join(examples, name));
    expect(found.bundle.name).toBe(name);
    expect(found.bundle.recipe).toBe('nafld');
    expect(found.bundle.provenance).toMatchObject({ intendedUse: expect.stringMatching(/not a medical device/) });
    const labels = (found.config as HPformerConfig).head.labels;
    expect(found.bundle.labels).toHaveLength(labels);
    const upstream = createHash('sha256')
      .update(fs.readFileSync(path.join(examples, name, 'upstream.pt')))
      .digest('hex');
    expect(found.bundle.provenance).toMatchObject({ checkpoint: { sha256: upstream } });
  });

  test('the weights file alone carries the same', async () => {
    const alone = await findModel(weights);
    const { bundle } = await loadModelDirectory(model);
    expect(alone.bundle).toEqual(bundle);
    expect((await findModel(fs.readFileSync(weights))).bundle).toEqual(bundle);
  });

  test('a manifest can be written again', async () => {
    const before = fs.readFileSync(path.join(folder, 'hpformer.json'), 'utf8');
    fs.rmSync(path.join(folder, 'hpformer.json'));
    await writeManifest(folder, { weights: 'model.safetensors', config: 'config.json', features: 'features.json' });
    expect(fs.readFileSync(path.join(folder, 'hpformer.json'), 'utf8')).toBe(before);
  });

  test.each<[string, () => void, string, RegExp]>([
    [
      'one byte of the recipe',
      () => edit('features.json', (t) => t.replace('50.39', '50.40')),
      'ERR_HPFORMER_CHECKPOINT',
      /features\.json: expected SHA-256 .*the model was changed/,
    ],
    [
      'one byte of the config',
      () => edit('config.json', (t) => t.replace('relu', 'silu')),
      'ERR_HPFORMER_CHECKPOINT',
      /config\.json: expected SHA-256/,
    ],
    [
      'one bit of the weights',
      () => {
        const file = path.join(folder, 'model.safetensors');
        const bytes = fs.readFileSync(file);
        bytes[bytes.length - 5]! ^= 1;
        fs.writeFileSync(file, bytes);
      },
      'ERR_HPFORMER_CHECKPOINT',
      /model\.safetensors: expected SHA-256/,
    ],
    [
      'one bit of the weights, manifest made to fit',
      () => {
        const file = path.join(folder, 'model.safetensors');
        const bytes = fs.readFileSync(file);
        bytes[bytes.length - 5]! ^= 1;
        fs.writeFileSync(file, bytes);
        rehash();
      },
      'ERR_HPFORMER_CHECKPOINT',
      /model\.safetensors: expected content with SHA-256 .*the file was changed/,
    ],
    [
      'another recipe, manifest made to fit',
      () => {
        edit('features.json', (t) => t.replace('50.39', '50.40'));
        rehash();
      },
      'ERR_HPFORMER_CHECKPOINT',
      /features\.json: expected the feature recipe inside model\.safetensors/,
    ],
    [
      'weights of another bundle, manifest made to fit',
      () => {
        fs.copyFileSync(
          path.join(examples, 'nafld-outcomes/model.safetensors'),
          path.join(folder, 'model.safetensors'),
        );
        rehash();
      },
      'ERR_HPFORMER_CHECKPOINT',
      /hpformer\.json: bundle: expected/,
    ],
    [
      'a later version',
      () => edit('hpformer.json', (t) => t.replace('"version": 1', '"version": 2')),
      'ERR_HPFORMER_CHECKPOINT',
      /expected version 1, got 2/,
    ],
    [
      'another format',
      () => edit('hpformer.json', (t) => t.replace('hpformer-model', 'zip')),
      'ERR_HPFORMER_CHECKPOINT',
      /expected format "hpformer-model", got "zip"/,
    ],
    [
      'a file of another folder',
      () => edit('hpformer.json', (t) => t.replace('"files": {', '"files": { "../x": "",')),
      'ERR_HPFORMER_CHECKPOINT',
      /expected plain names, got "\.\.\/x"/,
    ],
    [
      'no hash of the weights',
      () => edit('hpformer.json', (t) => t.replace('"model.safetensors": "', '"other": "')),
      'ERR_HPFORMER_CHECKPOINT',
      /expected a hash of "model\.safetensors"/,
    ],
    ['no JSON', () => edit('hpformer.json', () => '{'), 'ERR_HPFORMER_FILE', /hpformer\.json: expected JSON/],
    ['a missing file', () => fs.rmSync(path.join(folder, 'features.json')), 'ERR_HPFORMER_FILE', /features\.json/],
    ['no manifest', () => fs.rmSync(path.join(folder, 'hpformer.json')), 'ERR_HPFORMER_FILE', /hpformer\.json/],
  ])('%s is refused', async (_, damage, code, message) => {
    damage();
    const error = await failure(() => loadModelDirectory(folder));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
  });

  test('a path where nothing is', async () => {
    expect((await failure(() => findModel(path.join(folder, 'none')))).message).toMatch(
      /expected a model directory or file/,
    );
  });
});

describe('bundle', () => {
  test('made of a plain model, it reads back; a plain model is none', () => {
    const state = readSafetensors(fs.readFileSync(weights));
    const { [bundleKeys.content]: text, [bundleKeys.hash]: hash, ...plain } = state.metadata;
    const bytes = writeSafetensors(state.tensors as unknown as Map<string, WrittenTensor>, plain);
    expect(readBundle(bytes)).toBeUndefined();
    const again = writeBundle(bytes, JSON.parse(text!));
    expect(Buffer.from(again).equals(fs.readFileSync(weights))).toBe(true);
    expect(readBundle(again)!.hash).toBe(hash);
  });

  test.each<[string, (content: Record<string, unknown>) => void, RegExp]>([
    ['a later version', (c) => Object.assign(c, { version: 2 }), /expected bundle version 1, got 2/],
    ['another format', (c) => Object.assign(c, { format: 'x' }), /expected format "hpformer-bundle", got "x"/],
    ['no name', (c) => delete c.name, /name: expected a string, got undefined/],
    ['no recipe', (c) => delete c.recipe, /recipe: expected a string/],
    ['no features', (c) => Object.assign(c, { features: null }), /features: expected an object, got null/],
    ['labels that are no texts', (c) => Object.assign(c, { labels: [1] }), /labels: expected an array of strings/],
    ['no provenance', (c) => delete c.provenance, /provenance: expected an object/],
  ])('%s is refused', async (_, change, message) => {
    const error = await failure(() => readBundle(rewrite(change)));
    expect([error.code, error.message]).toEqual(['ERR_HPFORMER_CHECKPOINT', expect.stringMatching(message)]);
  });

  test('content that nests without end is refused, and overflows no stack', async () => {
    let deep: object = {};
    for (let i = 0; i < 3000; i++) deep = { deep };
    const error = await failure(() =>
      readBundle(
        rewrite((content) => {
          content.features = deep;
        }),
      ),
    );
    expect([error.code, error.message]).toEqual([
      'ERR_HPFORMER_CHECKPOINT',
      expect.stringContaining('expected content of at most 64 levels, got more'),
    ]);
  });

  test('content that does not have the hash of the file is refused', async () => {
    const changed = rewrite((c) => Object.assign(c, { name: 'other' }), true);
    expect((await failure(() => readBundle(changed))).message).toMatch(/the file was changed/);
    const noJson = writeSafetensors(new Map(), { [bundleKeys.content]: '{', [bundleKeys.hash]: '' });
    expect((await failure(() => readBundle(noJson))).message).toMatch(/expected JSON/);
  });
});

describe('recipe and model', () => {
  const bundle = readBundle(fs.readFileSync(weights))!;
  const changed = (change: (c: HPformerConfig) => void) => {
    const copy = structuredClone(config);
    change(copy);
    return copy;
  };

  test.each<[string, HPformerConfig, RegExp]>([
    [
      'another number of features',
      changed((c) => Object.assign(c.embedding, { size: 30 })),
      /expected a model of 31 features .*got 30 features/,
    ],
    [
      'tokens',
      changed((c) => Object.assign(c, { embedding: { kind: 'tokens', vocabulary: 9, padding: null } })),
      /got tokens/,
    ],
    ['other steps', changed((c) => Object.assign(c.segments, { steps: 24 })), /segments for 48 steps .*got 24/],
    ['another readout', changed((c) => Object.assign(c, { readout: 'mean' })), /readout "step", got "mean"/],
    ['another link', changed((c) => Object.assign(c.head, { link: 'softmax' })), /link "sigmoid", got "softmax"/],
    ['labels without names', changed((c) => delete c.head.names), /expected 1 named labels/],
  ])('%s: they do not fit', async (_, other, message) => {
    const error = await failure(() => openSource(bundle, other, ['x']));
    expect([error.code, error.message]).toEqual(['ERR_HPFORMER_CHECKPOINT', expect.stringMatching(message)]);
  });

  test('a recipe of other code, labels that the data cannot tell, several folders', async () => {
    expect((await failure(() => openSource({ ...bundle, recipe: 'other' }, config, ['x']))).code).toBe(
      'ERR_HPFORMER_CHECKPOINT',
    );
    const named = changed((c) => Object.assign(c.head, { names: ['flu'] }));
    expect((await failure(() => openSource(bundle, named, ['x']))).message).toMatch(
      /labels\[0\]: expected one of death/,
    );
    expect((await failure(() => openSource(bundle, config, ['x', 'y']))).message).toMatch(
      /expected one data folder, got 2/,
    );
    const source = openSource(bundle, config, [path.join(examples, 'nafld')]);
    const error = await failure(async () => {
      for await (const _ of source.labelled('dev', { batch: 8 })) break;
    });
    expect(error.message).toMatch(/part: expected train, valid, test or all, got "dev"/);
  });

  test('columns of score files', () => {
    expect(scoreColumns(config)).toEqual(['probability']);
    const two = changed((c) => Object.assign(c.head, { labels: 2, names: ['a', 'heart failure'] }));
    expect(scoreColumns(two)).toEqual(['p_a', 'p_heart failure']);
    expect(scoreColumns(changed((c) => Object.assign(c.head, { labels: 2, names: undefined })))).toEqual([
      'p_0',
      'p_1',
    ]);
    const nameless = changed((c) => Object.assign(c.head, { labels: 2, names: undefined }));
    expect(scoreColumns(nameless, ['sepsis', 'stroke'])).toEqual(['p_sepsis', 'p_stroke']);
    expect(scoreColumns(nameless, ['one'])).toEqual(['p_0', 'p_1']);
    expect(scoreColumns(two, ['x', 'y'])).toEqual(['p_a', 'p_heart failure']);
  });
});

describe('weightsOf', () => {
  test('a directory gives its weights, checked; everything else stays what it was', async () => {
    expect(Buffer.from((await weightsOf(model)) as Uint8Array).equals(fs.readFileSync(weights))).toBe(true);
    const url = pathToFileURL(weights);
    for (const source of [weights, url, path.join(folder, 'none'), new Uint8Array(3)]) {
      expect(await weightsOf(source)).toBe(source);
    }
    edit('config.json', (t) => t.replace('relu', 'silu'));
    expect((await failure(() => weightsOf(pathToFileURL(folder)))).code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect((await failure(() => weightsOf(3 as never))).code).toBe('ERR_HPFORMER_TYPE');
  });
});
