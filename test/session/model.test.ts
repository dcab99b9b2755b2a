import { AsyncLocalStorage } from 'node:async_hooks';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { devices, HPformer, HPformerError, presets, Tensor } from '../../src';
import { initialWeights } from '../../src/checkpoint/init';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { readBundle } from '../../src/data/bundle';
import { root } from '../skips';
import { batchOf, bits, codeOf, create } from './models';

let model: HPformer;
beforeAll(async () => {
  model = await create();
});
afterAll(() => model.dispose());

test('what a model says of itself', () => {
  expect(model.device).toBe('cpu');
  expect(model.precision).toBe('float32');
  expect(model.config.hidden).toBe(32);
  expect(Object.isFrozen(model.config)).toBe(true);
  expect(model.parameterCount.used).toBe(model.parameterCount.trainable);
  expect(model.graph).toBe(model.graph);
  expect(model.plan({ batch: 2, steps: 48 }).device).toBe('cpu');
  expect(() => new (HPformer as unknown as new () => HPformer)()).toThrow('expected HPformer.load');
});

test('run, runSync, trace and stream agree to the bit with each other', async () => {
  const feeds = batchOf(5, 1);
  const outputs = ['logits', 'probabilities', 'pooled', 'keys', 'attention'] as const;
  const run = await model.run(feeds, { outputs });
  expect(Object.keys(run)).toEqual([...outputs]);
  expect(model.runSync(feeds, { outputs })).toEqual(run);
  for await (const streamed of model.stream([feeds, feeds], { outputs })) expect(streamed).toEqual(run);
  const trace = await model.trace(feeds);
  expect(Object.keys(trace)).toEqual([
    'embedded',
    'segmentPool',
    'extraSegment',
    'intraSegment',
    'keys',
    'layer.0',
    'layer.1',
    'encoded',
    'pooled',
    'logits',
    'probabilities',
  ]);
  for (const name of ['logits', 'probabilities', 'pooled', 'keys'] as const) {
    const [a, b] = [trace[name]!.data as Float32Array, run[name].data as Float32Array];
    expect(Math.max(...a.map((value, i) => Math.abs(value - b[i]!)))).toBeLessThan(1e-5);
  }
});

test('inputs are copied at submit: they may change or be transferred at once', async () => {
  const feeds = batchOf(64, 2);
  const expected = bits(model.runSync(feeds).logits);
  const changed = model.run(feeds);
  (feeds.features.data as Float32Array).fill(9);
  const moved = batchOf(64, 2);
  const transferred = model.run(moved);
  const { buffer } = moved.features.data as Float32Array;
  structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
  expect(bits((await changed).logits)).toBe(expected);
  expect(bits((await transferred).logits)).toBe(expected);
  await expect(model.run(moved)).rejects.toThrow('is the buffer detached?');
});

test('inputs in a SharedArrayBuffer are taken', async () => {
  const feeds = batchOf(3, 4);
  const shared = new Float32Array(new SharedArrayBuffer(feeds.features.data.byteLength));
  shared.set(feeds.features.data as Float32Array);
  const result = await model.run({ features: new Tensor('float32', shared, feeds.features.dims) });
  expect(bits(result.logits)).toBe(bits(model.runSync(feeds).logits));
});

test('a resizable buffer that shrinks during the run harms nothing', async () => {
  const count = 3 * 48 * 7;
  const buffer = new (
    ArrayBuffer as unknown as new (
      n: number,
      o: object,
    ) => ArrayBuffer & { resize(n: number): void }
  )(count * 4, { maxByteLength: count * 4 });
  const data = new Float32Array(buffer, 0, count);
  data.set(batchOf(3, 4).features.data as Float32Array);
  const running = model.run({ features: new Tensor('float32', data, [3, 48, 7]) });
  buffer.resize(16);
  expect(bits((await running).logits)).toBe(bits(model.runSync(batchOf(3, 4)).logits));
});

test('64 runs at once give what they give alone, in any neighbourhood', async () => {
  const salts = Array.from({ length: 64 }, (_, i) => i);
  const alone = salts.map((salt) => bits(model.runSync(batchOf(1 + (salt % 7), salt)).logits));
  const together = await Promise.all(salts.map((salt) => model.run(batchOf(1 + (salt % 7), salt))));
  expect(together.map((result) => bits(result.logits))).toEqual(alone);
});

test('many models at once, and equal ones share their packed weights safely', async () => {
  const models = await Promise.all(Array.from({ length: 12 }, (_, i) => create({ seed: i % 3 })));
  const results = await Promise.all(models.map((each) => each.run(batchOf(4, 1))));
  for (const [i, result] of results.entries()) expect(bits(result.logits)).toBe(bits(results[i % 3]!.logits));
  expect(bits(results[0]!.logits)).not.toBe(bits(results[1]!.logits));
  for (const each of models.slice(0, 9)) each.dispose();
  expect(bits((await models[11]!.run(batchOf(4, 1))).logits)).toBe(bits(results[2]!.logits));
  for (const each of models) each.dispose();
});

test('a refused run leaves the model usable', async () => {
  const before = bits(model.runSync(batchOf(2, 7)).logits);
  const refusals: [object, string][] = [
    [{}, 'ERR_HPFORMER_INPUT'],
    [{ features: 3 }, 'ERR_HPFORMER_TYPE'],
    [{ features: new Float32Array(6) }, 'ERR_HPFORMER_SHAPE'],
    [{ ...batchOf(1, 0), step: new Int32Array([48]) }, 'ERR_HPFORMER_RANGE'],
    [{ ...batchOf(1, 0), readoutWeights: new Float32Array(48).fill(Number.NaN) }, 'ERR_HPFORMER_INPUT'],
  ];
  for (const [feeds, code] of refusals) {
    await expect(model.run(feeds)).rejects.toMatchObject({ name: 'HPformerError', code });
    expect(() => model.runSync(feeds)).toThrow(expect.objectContaining({ code }));
    await expect(model.trace(feeds)).rejects.toMatchObject({ code });
    await expect(model.stream([feeds]).next()).rejects.toMatchObject({ code });
  }
  await expect(model.run(batchOf(1, 0), { outputs: ['nothing'] })).rejects.toMatchObject({
    code: 'ERR_HPFORMER_INPUT',
  });
  await expect(model.stream([batchOf(1, 0)], { outputs: ['nothing'] }).next()).rejects.toMatchObject({
    code: 'ERR_HPFORMER_INPUT',
  });
  await expect(model.run(batchOf(1, 0), 5 as never)).rejects.toMatchObject({ code: 'ERR_HPFORMER_TYPE' });
  expect(bits(model.runSync(batchOf(2, 7)).logits)).toBe(before);
});

test('token ids are checked before any kernel sees them', async () => {
  const text = await HPformer.create(presets.listops({ hidden: 16, layers: 1 }), { device: 'cpu' });
  const run = (...ids: number[]) => text.run({ tokens: Int32Array.from(ids) });
  for (const id of [25, -1, 2147483647, -2147483648]) {
    await expect(run(2, 3, 4, id)).rejects.toMatchObject({
      code: 'ERR_HPFORMER_RANGE',
      message: expect.stringContaining(`0 to 24, got ${id}`),
    });
  }
  await expect(run(1, 1, 1)).rejects.toMatchObject({ code: 'ERR_HPFORMER_RANGE' });
  expect((await run(2, 3, 4, 24)).logits.dims).toEqual([1, 10]);
  text.dispose();
});

test("nonFinite: 'propagate' lets NaN through to its own sequence; 'error' names where it is", async () => {
  const feeds = batchOf(3, 1);
  (feeds.features.data as Float32Array)[(1 * 48 + 5) * 7 + 2] = Number.NaN;
  const { probabilities } = await model.run(feeds);
  expect([...probabilities.data].map(Number.isNaN)).toEqual([false, true, false]);
  const strict = await create({ nonFinite: 'error' });
  await expect(strict.run(feeds)).rejects.toMatchObject({
    code: 'ERR_HPFORMER_INPUT',
    message: expect.stringMatching(/sequence 1, step 5, feature 2/),
  });
  expect((await strict.run(batchOf(3, 1))).logits.dims).toEqual([3, 1]);
  strict.dispose();
});

test("nonFinite: 'error' sees what overflows in the head, whatever was asked for", async () => {
  const config = presets.mortality({ embedding: { size: 3 }, hidden: 8, heads: 2, layers: 1 });
  const weights = initialWeights(config, 1);
  weights.get('head.output.weight')!.data.fill(3e38);
  const checkpoint = serializeCheckpoint(config, weights);
  for (const device of ['cpu', 'reference'] as const) {
    // Sums of 3e38 are beyond float32 only.
    const strict = await HPformer.load(checkpoint, { device, nonFinite: 'error' });
    const run = (...outputs: ('logits' | 'probabilities' | 'pooled' | 'keys')[]) =>
      codeOf(() => strict.run(batchOf(2, 1, 48, 3), { outputs }));
    const wanted = device === 'cpu' ? 'ERR_HPFORMER_INPUT' : 'ok';
    expect([await run('logits'), await run('probabilities'), await run('pooled', 'probabilities')]).toEqual([
      wanted,
      wanted,
      wanted,
    ]);
    expect(await run('keys', 'pooled')).toBe('ok');
    strict.dispose();
  }
  weights.get('head.output.weight')!.data.fill(0);
  weights.get('tdhp.fusion.weight')!.data.fill(3e38);
  const strict = await HPformer.load(serializeCheckpoint(config, weights), { device: 'cpu', nonFinite: 'error' });
  await expect(strict.run(batchOf(2, 1, 48, 3), { outputs: ['keys'] })).rejects.toMatchObject({
    code: 'ERR_HPFORMER_INPUT',
    message: expect.stringMatching(
      /^keys: expected finite values, got -?(inf|nan).* at sequence 0, segment 0, channel 0/i,
    ),
  });
  strict.dispose();
});

test('an all-zero readout gives the bias', async () => {
  const zero = { ...batchOf(2, 3), readoutWeights: new Tensor('float32', new Float32Array(96), [2, 48]) };
  const { logits, pooled } = await model.run(zero, { outputs: ['logits', 'pooled'] });
  expect([...pooled.data].every((value) => value === 0)).toBe(true);
  expect(logits.data[0]).toBe(logits.data[1]);
});

test('save and load keep every bit', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-'));
  try {
    const path = join(folder, 'model.safetensors');
    await model.save(pathToFileURL(path));
    const again = await HPformer.load(path, { device: 'cpu' });
    expect(again.config).toEqual(model.config);
    expect(bits(again.runSync(batchOf(3, 3)).logits)).toBe(bits(model.runSync(batchOf(3, 3)).logits));
    again.dispose();
    await expect(model.save(join(folder, 'no', 'such', 'folder'))).rejects.toMatchObject({ code: 'ERR_HPFORMER_FILE' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the bytes of a checkpoint are read at the call: they may change or be transferred at once', async () => {
  const config = presets.mortality({ embedding: { size: 3 }, hidden: 8, heads: 2, layers: 1 });
  const bytes = serializeCheckpoint(config, initialWeights(config, 1));
  const answer = async (loading: Promise<HPformer>) => {
    const loaded = await loading;
    const { logits } = loaded.runSync(batchOf(2, 1, 48, 3));
    loaded.dispose();
    return bits(logits);
  };
  const want = await answer(HPformer.load(bytes.slice(), { device: 'cpu' }));
  const changed = bytes.slice();
  const loading = HPformer.load(changed, { device: 'cpu' });
  changed.fill(0, changed.length - 500);
  expect(await answer(loading)).toBe(want);
  const moved = bytes.slice();
  const transferred = HPformer.load(moved, { device: 'cpu' });
  structuredClone(moved.buffer, { transfer: [moved.buffer as ArrayBuffer] });
  expect(await answer(transferred)).toBe(want);
});

test('a bundle that was changed is refused; one that is saved with another configuration stays a bundle', async () => {
  const path = join(root, 'examples', 'nafld-mortality', 'model.safetensors');
  const bytes = new Uint8Array(readFileSync(path));
  bytes[bytes.length - 3]! ^= 1;
  await expect(HPformer.load(bytes)).rejects.toMatchObject({
    code: 'ERR_HPFORMER_CHECKPOINT',
    message: expect.stringMatching(/expected content with SHA-256 .*; the file was changed/),
  });
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-'));
  try {
    const saved = join(folder, 'valid.safetensors');
    const changed = await HPformer.load(path, { config: { segments: { over: 'valid' } }, device: 'cpu' });
    await changed.save(saved);
    changed.dispose();
    expect(readBundle(readFileSync(saved))).toMatchObject({ recipe: 'nafld' });
    expect((await HPformer.load(saved)).config.segments.over).toBe('valid');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('an error that native code finds has its caller in the stack', async () => {
  const text = await HPformer.create(presets.listops({ hidden: 8, heads: 1, layers: 1 }), { seed: 1 });
  async function theHandler(): Promise<unknown> {
    return await text.run({ tokens: new Int32Array(24).fill(99) });
  }
  const error: Error = await theHandler().then(
    () => new Error('no error'),
    (reason) => reason,
  );
  expect(error.message).toMatch(/99/);
  expect(error.stack).toMatch(/theHandler/);
  text.dispose();
});

test('create: the seed decides the bits; a bad config or seed is refused', async () => {
  const [a, b, c] = await Promise.all([create({ seed: 1 }), create({ seed: 1 }), create({ seed: 2 })]);
  const [ra, rb, rc] = [a, b, c].map((each) => bits(each.runSync(batchOf(1, 0)).logits));
  expect(ra).toBe(rb);
  expect(ra).not.toBe(rc);
  for (const each of [a, b, c]) each.dispose();
  await expect(create({ seed: -1 })).rejects.toMatchObject({ code: 'ERR_HPFORMER_RANGE' });
  await expect(HPformer.create({} as never)).rejects.toMatchObject({ code: 'ERR_HPFORMER_CONFIG' });
  await expect(create({ device: 'cuda:99' })).rejects.toMatchObject({ code: 'ERR_HPFORMER_DEVICE' });
});

test('warmup, the reference device, and a limit on bytes', async () => {
  await model.warmup({ batch: 4, steps: 48 });
  await expect(model.warmup({ batch: 0, steps: 48 })).rejects.toMatchObject({ code: 'ERR_HPFORMER_RANGE' });
  await expect(model.warmup({ batch: 1, steps: 47 })).rejects.toMatchObject({ code: 'ERR_HPFORMER_SHAPE' });
  const reference = await create({ device: 'reference' });
  expect([reference.device, reference.precision]).toEqual(['reference', 'float64']);
  expect((await reference.run(batchOf(1, 0))).logits.type).toBe('float64');
  reference.dispose();
  const limited = await create({ maxBytes: 16_000 });
  await expect(limited.run(batchOf(9, 0))).rejects.toMatchObject({ code: 'ERR_HPFORMER_LIMIT' });
  expect((await limited.run(batchOf(8, 0))).logits.dims).toEqual([8, 1]);
  limited.dispose();
});

test('the run queue is bounded: beyond it a run is refused, the others finish, the model stays usable', async () => {
  const slow = await HPformer.create(presets.decompensation({ layers: 60, tiedLayers: true }), {
    device: 'cpu',
    seed: 1,
  });
  const long = batchOf(64, 0, 504, 76);
  const controller = new AbortController();
  const options = { signal: controller.signal };
  // Enough of them, and the others' inputs at hand, that submitting is over before they are: however slow this process is.
  const inputs = Array.from({ length: 2500 }, (_, i) => batchOf(1, i));
  const first = Array.from({ length: 8 }, () => slow.run(long, options).catch((error) => error));
  const settled = Promise.allSettled(inputs.map((input) => model.run(input)));
  controller.abort('enough');
  const results = await settled;
  await Promise.all(first);
  const refused = results.filter((result) => result.status === 'rejected');
  expect(refused.length).toBeGreaterThan(0);
  expect([...new Set(refused.map(({ reason }) => reason.code))]).toEqual(['ERR_HPFORMER_LIMIT']);
  expect(results.length - refused.length).toBeGreaterThan(0);
  expect(bits((await model.run(batchOf(2, 7))).logits)).toBe(bits(model.runSync(batchOf(2, 7)).logits));
  slow.dispose();
});

test('the async context survives a run', async () => {
  const storage = new AsyncLocalStorage<string>();
  await storage.run('mine', async () => {
    await model.run(batchOf(1, 0));
    expect(storage.getStore()).toBe('mine');
  });
});

test('devices: what there is, and why the rest is not', () => {
  const found = devices();
  expect(found.map((device) => device.id)).toEqual(expect.arrayContaining(['cpu', 'reference']));
  for (const device of found) {
    expect(device.available).toBe(device.precisions.length > 0);
    if (!device.available) expect(device.reason).not.toBe('');
  }
});

describe('dispose', () => {
  test('running calls finish, later ones fail, again is nothing', async () => {
    const mine = await create();
    const running = Promise.all(Array.from({ length: 8 }, (_, i) => mine.run(batchOf(32, i))));
    mine.dispose();
    mine.dispose();
    expect(await running).toHaveLength(8);
    for (const late of [
      () => mine.run(batchOf(1, 0)),
      () => mine.trace(batchOf(1, 0)),
      () => mine.warmup({ batch: 1, steps: 48 }),
      () => mine.save('x'),
    ]) {
      await expect(late()).rejects.toMatchObject({ code: 'ERR_HPFORMER_DISPOSED' });
    }
    expect(() => mine.runSync(batchOf(1, 0))).toThrow(HPformerError);
    await expect(mine.stream([batchOf(1, 0)]).next()).rejects.toMatchObject({ code: 'ERR_HPFORMER_DISPOSED' });
    expect(mine.plan({ batch: 1, steps: 48 }).batch).toBe(1);
  });

  test('using and await using', async () => {
    const mine = await create();
    const running = mine.run(batchOf(32, 1));
    let done = false;
    const marked = running.then(() => {
      done = true;
    });
    await mine[Symbol.asyncDispose]();
    await marked;
    expect(done).toBe(true);
    await mine[Symbol.asyncDispose]();
    const other = await create();
    other[Symbol.dispose]();
    expect(() => other.runSync(batchOf(1, 0))).toThrow(expect.objectContaining({ code: 'ERR_HPFORMER_DISPOSED' }));
  });
});

test('warm-up of token models, one sequence and two', async () => {
  for (const config of [presets.text({ hidden: 16, layers: 1 }), presets.retrieval({ hidden: 16, layers: 1 })]) {
    const model = await HPformer.create(config, { device: 'cpu', seed: 1 });
    await model.warmup({ batch: 2, steps: 64 });
    await expect(model.warmup({ batch: 0, steps: 64 })).rejects.toMatchObject({ code: 'ERR_HPFORMER_RANGE' });
    model.dispose();
  }
});
