/**
 * The addon called past TypeScript's checks: whatever comes in is a result, a status or a TypeError, never a crash, and the model
 * works afterwards. Status numbers are those of binding/contract/status.h.
 */
import fc from 'fast-check';
import { initialWeights } from '../../../src/checkpoint/init';
import { presets } from '../../../src/config/presets';
import { validateConfig } from '../../../src/config/validate';
import type { NativeModel, NativeRequest } from '../../../src/native/addon';
import { loadAddon } from '../../../src/native/load';
import { requestSlots } from '../../../src/native/request';
import { nativeSpec } from '../../../src/native/spec';
import { statusAborted, statusError } from '../../../src/native/status';
import { seed } from '../../seed';

const [shape, type, range, input, configCode, checkpoint, disposed] = [1, 2, 3, 4, 5, 6, 11];

const addon = loadAddon();
const config = validateConfig(
  presets.mortality({
    embedding: { size: 7 },
    hidden: 16,
    heads: 2,
    layers: 2,
    head: { layers: [{ size: 3, activation: 'relu' }] },
  }),
);
const spec = nativeSpec(config);
const weights: Record<string, Float32Array | Float64Array> = {};
for (const [name, { data }] of initialWeights(config, 1)) weights[name] = data;
const options = { device: 'cpu', precision: 0, threads: 1, key: 'addon-test', rejectNonFinite: false };

type Answer = [code: number, message: string, model: NativeModel | undefined];
const create = (s: unknown = spec, w: unknown = weights, o: unknown = options): Promise<Answer> =>
  new Promise((resolve) => {
    addon.createModel(s as never, w as never, o as never, (...answer) => resolve(answer as Answer));
  });

/** An object whose key cannot be read. */
const throwing = (base: object, key: string) =>
  Object.defineProperty({ ...base }, key, {
    enumerable: true,
    get() {
      throw new Error('mine');
    },
  });
function detached(): Float32Array {
  const data = new Float32Array(672);
  structuredClone(data.buffer, { transfer: [data.buffer] });
  return data;
}

describe('createModel', () => {
  test('takes what is right', async () => {
    const [code, message, model] = await create();
    expect([code, message]).toEqual([0, '']);
    expect(model!.packedBytes).toBeGreaterThan(0);
    model!.dispose();
  });

  test.each<[unknown[]]>([
    [[]],
    [[spec, weights, options]],
    [[null, weights, options, () => {}]],
    [[spec, 3, options, () => {}]],
    [[spec, weights, 'cpu', () => {}]],
    [[spec, weights, options, {}]],
  ])('other arguments are a TypeError', (args) => {
    expect(() => (addon.createModel as (...a: unknown[]) => void)(...args)).toThrow(
      'createModel: expected a spec, weights, options and a callback',
    );
  });

  test.each(Object.keys(spec))('spec.%s: absent, of another type, out of range, or throwing', async (key) => {
    for (const value of [undefined, null, 'x', {}, Number.NaN, -5, 0.5, 2 ** 60, Number.POSITIVE_INFINITY, 7n]) {
      const [code, message, model] = await create({ ...spec, [key]: value });
      expect(model).toBeUndefined();
      expect([shape, type, range, configCode, checkpoint]).toContain(code);
      expect(message).toMatch(/^spec/);
    }
    const [code, message] = await create(throwing(spec, key));
    expect(code === type || code === range).toBe(true);
    expect(message).toMatch(/^spec\./);
  });

  test('heads that do not divide hidden, padding outside the vocabulary', async () => {
    expect((await create({ ...spec, heads: 3 })).slice(0, 2)).toEqual([
      configCode,
      'spec.heads: expected a divisor of 16, got 3',
    ]);
    expect((await create({ ...spec, embedding: 1, vocabulary: 9, padding: 9 }))[1]).toBe(
      'spec.padding: expected an id of the vocabulary, got 9',
    );
  });

  test('head layers that are no objects', async () => {
    for (const headLayers of [[1], [null], [{ size: 3 }], [{ size: 0, activation: 0 }], [{ size: 3, activation: 9 }]]) {
      const [code, message] = await create({ ...spec, headLayers });
      expect([type, range]).toContain(code);
      expect(message).toMatch(/^spec\.headLayers/);
    }
  });

  test.each(Object.keys(options))('options.%s: absent, of another type, or throwing', async (key) => {
    for (const value of [undefined, null, {}, Number.NaN, -5]) {
      const [code, message] = await create(spec, weights, { ...options, [key]: value });
      expect([type, range]).toContain(code);
      expect(message).toMatch(/^options\./);
    }
    expect((await create(spec, weights, throwing(options, key)))[0]).toBeGreaterThan(0);
  });

  test('a device that there is not', async () => {
    for (const device of ['tpu', '', 'cuda:99', 'cuda:x']) {
      const [code, message] = await create(spec, weights, { ...options, device });
      expect(code).toBe(8);
      expect(message.length).toBeGreaterThan(0);
    }
  });

  test('weights of another kind, size or name', async () => {
    const name = 'tdhp.fusion.bias';
    for (const value of [3, [1, 2], 'x', null, undefined, new Int32Array(16), new DataView(new ArrayBuffer(8))])
      expect((await create(spec, { ...weights, [name]: value }))[0]).toBe(type);
    expect((await create(spec, throwing(weights, name)))[0]).toBe(type);
    const proxy = new Proxy(weights, {
      ownKeys() {
        throw new Error('mine');
      },
    });
    expect((await create(spec, proxy)).slice(0, 2)).toEqual([type, 'weights: expected an object of typed arrays']);
    for (const value of [new Float32Array(15), detached(), new Float64Array(17)])
      expect((await create(spec, { ...weights, [name]: value })).slice(0, 2)).toEqual([
        checkpoint,
        `${name}: expected 16 values, got ${value.length}`,
      ]);
    const { [name]: _, ...missing } = weights;
    expect((await create(spec, missing))[1]).toBe(`${name}: is missing`);
    expect((await create(spec, { ...weights, surplus: new Float32Array(1) }))[0]).toBe(checkpoint);
    expect((await create(spec, { ...weights, [name]: new Float32Array(16).fill(Number.NaN) }))[0]).toBe(checkpoint);
    expect((await create(spec, { ...weights, [name]: new Float64Array(16) }))[0]).toBe(0);
  });
});

describe.each(['cpu', 'reference'])('a model on %s', (device) => {
  const Real = device === 'cpu' ? Float32Array : Float64Array;
  let model: NativeModel;
  beforeAll(async () => {
    model = (await create(spec, weights, { ...options, device }))[2]!;
  });
  afterAll(() => model.dispose());

  const request = (): NativeRequest => ({
    ...{ rewrites: 0x7f, batch: 2, trace: false, step: Int32Array.of(47, 3) },
    feed: {
      steps: 48,
      features: new Real(Array.from({ length: 672 }, (_, i) => Math.sin(i))),
      lengths: Int32Array.of(48, 20),
    },
    out: {
      segmentsMax: 4,
      pooled: new Real(32),
      keys: new Real(128),
      segments: new Int32Array(2),
      attention: new Real(32),
      segmentAttention: new Real(32),
      intraAttention: new Real(96),
    },
    logits: new Real(2),
    probabilities: new Real(2),
  });
  const run = (slots: readonly unknown[]) => model.runSync(slots, ...slots)?.code ?? 0;
  const submit = (slots: unknown[]) =>
    new Promise<number>((resolve) => {
      slots[0] = resolve;
      model.submit(slots, ...slots);
    });

  test('a traced request fills every array that is asked for', async () => {
    const trace = { ...request(), trace: true, head: [new Real(6)] };
    const list = { layers: [new Real(1536), new Real(1536)] };
    const cut = () => new Real(128);
    const steps = { embedded: new Real(1536), encoded: new Real(1536) };
    const out = { ...trace.out, ...list, ...steps, segmentPool: cut(), extraSegment: cut(), intraSegment: cut() };
    expect(run(requestSlots({ ...trace, out }, undefined))).toBe(0);
    for (const array of [...list.layers, ...trace.head!, out.embedded, out.encoded, out.segmentPool, out.keys!])
      expect(Math.max(...array)).toBeGreaterThan(0);
    // One layer too few, too many values, or something else in the list.
    for (const layers of [[list.layers[0]!], [new Real(1), new Real(1536)], [1, 2], {}, throwing([], '0')])
      expect([type, shape]).toContain(
        run(requestSlots({ ...trace, out: { ...out, layers: layers as never } }, undefined)),
      );
    expect([type, shape]).toContain(run(requestSlots({ ...trace, out, head: [new Real(5)] }, undefined)));
  });

  test('arguments that are no request are a TypeError', () => {
    const call =
      (name: 'submit' | 'runSync', ...args: unknown[]) =>
      () =>
        (model[name] as (...a: unknown[]) => unknown)(...args);
    for (const name of ['submit', 'runSync'] as const) {
      expect(call(name)).toThrow(`${name}: expected a request`);
      expect(call(name, [])).toThrow(`${name}: expected a request`);
      expect(call(name, {}, ...new Array(30))).toThrow(`${name}: expected a request`);
    }
    const slots = requestSlots(request(), undefined);
    expect(call('submit', slots, ...slots)).toThrow('submit: expected a request');
    expect(() => new (model.constructor as new () => unknown)()).toThrow('NativeModel: only createModel makes these');
    model.cancel(-1);
    model.cancel('x' as never);
    model.cancel(undefined as never);
  });

  test('a required value that is absent is named', () => {
    const slots = [...requestSlots(request(), undefined)];
    const features = slots.findIndex((value) => (value as Float32Array)?.length === 672);
    slots[features] = undefined;
    const answer = model.runSync(slots, ...slots)!;
    expect(answer).toEqual({
      code: input,
      message: expect.stringMatching(/features: expected a Float\d\dArray, got nothing/),
    });
    slots[features] = detached();
    expect(run(slots)).toBe(device === 'cpu' ? shape : type);
  });

  test(`any value in any slot is a result or a status (SEED=${seed})`, async () => {
    const clean = request();
    expect(run(requestSlots(clean, undefined))).toBe(0);
    const expected = Array.from(clean.logits!);
    const strange = fc.constantFrom<unknown>(
      ...[undefined, null, true, 'x', {}, [], () => {}, 7n, Symbol('s')],
      ...[-1, 0, 1, 3, 1.5, 2 ** 31, 2 ** 32, 2 ** 53, Number.NaN, Number.NEGATIVE_INFINITY],
      ...[new Float32Array(0), new Float32Array(672), new Float64Array(672), new Float32Array(2), new Float64Array(2)],
      ...[Int32Array.of(-1, 99), new Int32Array(2), new Uint8Array(2), new BigInt64Array(2), detached()],
    );
    const length = requestSlots(request(), undefined).length;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 1, max: length - 1 }), strange), { minLength: 1, maxLength: 3 }),
        async (changes) => {
          const slots = [...requestSlots(request(), undefined)];
          for (const [at, value] of changes) slots[at] = value;
          const code = run(slots);
          expect(code).toBeGreaterThanOrEqual(0);
          expect(code).toBeLessThan(12);
          expect(await submit([...slots])).toBe(code);
        },
      ),
      { seed, numRuns: 1500 },
    );
    const again = request();
    expect(await submit([...requestSlots(again, undefined)])).toBe(0);
    expect(Array.from(again.logits!)).toEqual(expected);
  });

  test('after dispose every call says so', async () => {
    const mine = (await create(spec, weights, { ...options, device }))[2]!;
    mine.dispose();
    mine.dispose();
    const slots = [...requestSlots(request(), undefined)];
    expect(mine.runSync(slots, ...slots)).toEqual({ code: disposed, message: expect.stringContaining('disposed') });
    const answer = await new Promise((resolve) => {
      slots[0] = (...values: unknown[]) => resolve(values);
      mine.submit(slots, ...slots);
    });
    expect(answer).toEqual([disposed, 'model: expected a live model, got one that was disposed']);
  });
});

describe('kernel', () => {
  const x = new Float32Array(4);
  const call = (...args: unknown[]) =>
    (addon.kernel as (...a: unknown[]) => { code: number; message: string })(...args);
  const parameters = { rows: 2, inputs: 2, outputs: 2, activation: 0 };

  test('arguments of other types', () => {
    for (const args of [[], [1, {}, {}, {}], ['dense', 3, {}, {}], ['dense', {}, null, {}], ['dense', {}, {}]])
      expect(call(...args).code).toBe(type);
    expect(call('dense', { rows: 'two' }, {}, {})).toEqual({ code: type, message: 'dense.rows: expected a number' });
    expect(call('dense', parameters, { x: [1] }, {}).message).toBe('dense.x: expected a typed array');
    expect(call('dense', parameters, { x: new Float64Array(4) }, { out: x }).message).toMatch(
      /^dense\.x: expected .*Float32Array/,
    );
    expect(call('dense', parameters, { x }, { out: new Int32Array(4) }).message).toMatch(
      /^dense\.out: expected .*Float32Array/,
    );
    expect(call('dense', parameters, { x }, { out: 4 }).code).toBe(type);
    expect(call('none', {}, {}, {}).code).toBe(input);
  });

  test('a getter that throws comes through', () => {
    expect(() => call('dense', throwing({}, 'rows'), {}, {})).toThrow('mine');
  });

  test('a right call, with what is undefined left out', () => {
    const out = new Float32Array(4);
    const inputs = { x: Float32Array.of(1, 2, 3, 4), weight: Float32Array.of(1, 0, 0, 1), bias: undefined };
    expect(call('dense', parameters, inputs, { out, more: undefined })).toEqual({ code: 0, message: '' });
    expect(Array.from(out)).toEqual([1, 2, 3, 4]);
  });
});

test('every status has its error; a number of another version is an internal one', () => {
  for (let code = 1; code < 13; code++) expect(statusError(code, 'm')).toMatchObject({ message: 'm' });
  expect(statusError(statusAborted, 'm')).toMatchObject({
    code: 'ERR_HPFORMER_INTERNAL',
    message: 'native status 13: m',
  });
});
