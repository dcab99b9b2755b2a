/** Arguments that are missing or of the wrong kind: an HPformerError that says where, never a TypeError of the language. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { devices, type Feeds, HPformer, HPformerError, presets, Tensor } from '../../../src';

const config = presets.mortality({
  embedding: { size: 3 },
  hidden: 16,
  heads: 4,
  layers: 1,
  segments: { steps: 12 },
});
const features = new Tensor('float32', new Float32Array(36), [1, 12, 3]);

let model: HPformer;
beforeAll(async () => {
  model = await HPformer.create(config, { device: 'cpu' });
});
afterAll(() => model.dispose());

const nothing = undefined as never;

test.each<[string, () => Promise<unknown>, string, string]>([
  ['run', () => model.run(nothing), 'TYPE', 'feeds: expected an object of tensors by name, got undefined'],
  ['run options', () => model.run({ features }, null as never), 'TYPE', 'options: expected an object, got null'],
  ['trace', () => model.trace(nothing), 'TYPE', 'feeds: expected an object of tensors by name, got undefined'],
  ['warmup', () => model.warmup(nothing), 'TYPE', 'warmup: expected { batch, steps }, got undefined'],
  ['warmup null', () => model.warmup(null as never), 'TYPE', 'warmup: expected { batch, steps }, got null'],
  ['warmup {}', () => model.warmup({} as never), 'TYPE', 'batch: expected an integer, got undefined'],
  ['plan', async () => model.plan(nothing), 'TYPE', 'plan: expected { batch, steps }, got undefined'],
  ['save', () => model.save(nothing), 'TYPE', 'path: expected a path or a file: URL, got undefined'],
  ['save to the network', () => model.save('http://x/y'), 'FILE', 'path: expected a path or a file: URL'],
  ['load', () => HPformer.load(nothing), 'TYPE', 'source: expected a path, a file: URL or a Uint8Array, got undefined'],
  ['create', () => HPformer.create(nothing), 'CONFIG', 'config: expected an object, got undefined'],
  [
    'stream',
    () => model.stream(nothing).next(),
    'TYPE',
    'stream: expected an (async) iterable of feeds, got undefined',
  ],
])('%s without its argument', async (_, action, code, message) => {
  const error = await action().then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(HPformerError);
  expect(error).toMatchObject({ code: `ERR_HPFORMER_${code}`, message: expect.stringContaining(message) });
});

test('a directory without a model says what a model directory has', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-empty-'));
  await expect(HPformer.load(folder)).rejects.toMatchObject({
    code: 'ERR_HPFORMER_FILE',
    message: `${folder}: expected a model file, or a model directory with hpformer.json in it, got a directory without`,
  });
  fs.rmSync(folder, { recursive: true });
});

test('the precisions of a device are what a model on it says', async () => {
  for (const device of ['cpu', 'reference'] as const) {
    const made = await HPformer.create(config, { device });
    expect(devices().find(({ id }) => id === device)!.precisions).toContain(made.precision);
    made.dispose();
  }
});

test('the plan as text shows no negative zero and aligns its numbers', () => {
  const text = model.plan({ batch: 2, steps: 12 }).toString();
  expect(text).not.toMatch(/-0\b/);
  const [nodes, rewrites] = text
    .split('\n\n')
    .slice(1)
    .map((block) => block.split('\n')) as [string[], string[]];
  expect(new Set(nodes.map((line) => line.search(/FLOP\b/))).size).toBe(1);
  expect(rewrites.find((line) => line.startsWith('tokenTables'))).toMatch(/ no +– +– {2}the embedding is not a table$/);
});

test('numbers in native messages are spelled as JavaScript spells them', async () => {
  const strict = await HPformer.create(
    { ...config, segments: { ...config.segments, over: 'valid' } },
    { nonFinite: 'error' },
  );
  const holding = (value: number, at: number) => {
    const data = new Float32Array(36);
    data[at] = value;
    return new Tensor('float32', data, [1, 12, 3]);
  };
  const message = (feeds: Feeds) => (error: object) => expect(strict.run(feeds)).rejects.toMatchObject(error);
  for (const [value, text] of [
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ] as const) {
    await message({ features: holding(value, 7) })({
      code: 'ERR_HPFORMER_INPUT',
      message: `features: expected finite values, got ${text} at sequence 0, step 2, feature 1`,
    });
  }
  const readoutWeights = new Tensor('float32', new Float32Array(12), [1, 12]);
  readoutWeights.data[5] = 1e-7;
  const lengths = new Tensor('int32', Int32Array.of(5), [1]);
  await message({ features, lengths, readoutWeights })({
    code: 'ERR_HPFORMER_RANGE',
    message: "readoutWeights: expected 0 beyond the sequence's length 5, got 1.00000001e-07 at sequence 0, step 5",
  });
  strict.dispose();
});

test('undefined is as good as absent, for the compiler (exactOptionalPropertyTypes) and at run time', async () => {
  const none = undefined;
  const made = await HPformer.create(config, {
    device: none,
    precision: none,
    threads: none,
    signal: none,
    seed: none,
  });
  const results = await made.run({ features, step: none, readoutWeights: none }, { outputs: none, signal: none });
  expect(Object.keys(results)).toEqual(['logits', 'probabilities']);
  expect(made.plan({ batch: 1, steps: 12, steps2: none, rows: none }).rows).toBe(1);
  for await (const { logits } of made.stream([{ features }], { outputs: none, concurrency: none, signal: none }))
    expect(logits.data).toEqual(results.logits.data);
  made.dispose();
});
