import fc from 'fast-check';
import { HPformer, Tensor } from '../../src';
import { seed } from '../seed';
import { batchOf, big, bits, create } from './models';

const times = Number(process.env.ABORTS ?? 300);
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

let model: HPformer;
/** Long runs: the published decompensation model. */
let long: HPformer;
const longBatch = (batch: number) => ({
  features: new Tensor('float32', new Float32Array(batch * 504 * 76).fill(0.5), [batch, 504, 76]),
});

beforeAll(async () => {
  model = await create({ threads: 1 });
  long = await HPformer.create(big, { device: 'cpu', seed: 1, threads: 1 });
});
afterAll(() => {
  model.dispose();
  long.dispose();
});

test('already aborted: the reason itself, and nothing is looked at', async () => {
  for (const reason of [new Error('mine'), 'a string', 0, null, { code: 1 }]) {
    const signal = AbortSignal.abort(reason);
    await expect(model.run(batchOf(1, 0), { signal })).rejects.toBe(reason);
    await expect(model.run({}, { signal })).rejects.toBe(reason);
    await expect(model.trace(batchOf(1, 0), { signal })).rejects.toBe(reason);
    await expect(model.stream([batchOf(1, 0)], { signal }).next()).rejects.toBe(reason);
    await expect(create({ signal })).rejects.toBe(reason);
  }
});

test('a signal of another make, without throwIfAborted and reason, aborts too; half a signal is an error', async () => {
  const made = (aborted: boolean) => Object.assign(new EventTarget(), { aborted }) as unknown as AbortSignal;
  const { logits } = await model.run(batchOf(1, 0), { signal: made(false) });
  expect(bits(logits)).toBe(bits(model.runSync(batchOf(1, 0)).logits));
  const aborted = expect.objectContaining({ name: 'AbortError' });
  await expect(model.run(batchOf(1, 0), { signal: made(true) })).rejects.toEqual(aborted);
  await expect(model.trace(batchOf(1, 0), { signal: made(true) })).rejects.toEqual(aborted);
  await expect(create({ signal: made(true) })).rejects.toEqual(aborted);
  const later = made(false);
  const running = long.run(longBatch(64), { signal: later });
  Object.assign(later, { aborted: true });
  later.dispatchEvent(new Event('abort'));
  await expect(running).rejects.toEqual(aborted);
  const half = { aborted: false, addEventListener() {} } as unknown as AbortSignal;
  await expect(model.run(batchOf(1, 0), { signal: half })).rejects.toMatchObject({ code: 'ERR_HPFORMER_TYPE' });
});

test('while a model is made or loaded: the reason at once, nothing is left over; signals that never fire do no harm', async () => {
  const signal = new AbortController().signal;
  const made = await create({ signal });
  expect((await made.run(batchOf(1, 0))).logits.dims).toEqual([1, 1]);
  made.dispose();
  const controller = new AbortController();
  const reason = new Error('no longer wanted');
  const making = HPformer.create(big, { device: 'cpu', seed: 1, signal: controller.signal });
  controller.abort(reason);
  await expect(making).rejects.toBe(reason);
});

test('during compute: rejects at once with the reason, and the model runs on', async () => {
  const expected = bits(long.runSync(longBatch(1)).logits);
  const controller = new AbortController();
  const reason = new Error('enough');
  const running = long.run(longBatch(64), { signal: controller.signal });
  await sleep(5);
  controller.abort(reason);
  await expect(running).rejects.toBe(reason);
  expect(bits((await long.run(longBatch(1))).logits)).toBe(expected);
});

test('the job behind an aborted run ends too: disposal waits for it and comes back', async () => {
  const mine = await HPformer.create(big, { device: 'cpu', seed: 1, threads: 1 });
  const controller = new AbortController();
  const runs = Array.from({ length: 4 }, () => mine.run(longBatch(64), { signal: controller.signal }));
  controller.abort('stop');
  expect((await Promise.allSettled(runs)).every((run) => run.status === 'rejected' && run.reason === 'stop')).toBe(
    true,
  );
  await mine[Symbol.asyncDispose]();
});

test('while queued: the runs around it are untouched', async () => {
  const expected = bits(model.runSync(batchOf(8, 3)).logits);
  const controller = new AbortController();
  const runs = Array.from({ length: 30 }, (_, i) =>
    model.run(batchOf(8, 3), i % 3 === 1 ? { signal: controller.signal } : {}),
  );
  controller.abort('queued');
  const settled = await Promise.allSettled(runs);
  for (const [i, result] of settled.entries()) {
    if (i % 3 === 1) expect(result).toEqual({ status: 'rejected', reason: 'queued' });
    else expect(bits((result as PromiseFulfilledResult<{ logits: Tensor }>).value.logits as never)).toBe(expected);
  }
});

test('after done: nothing happens, and no listener stays behind', async () => {
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = ((...args: Parameters<typeof add>) => {
    listeners++;
    add(...args);
  }) as typeof signal.addEventListener;
  signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
    listeners--;
    remove(...args);
  }) as typeof signal.removeEventListener;
  const result = await model.run(batchOf(1, 0), { signal });
  expect(listeners).toBe(0);
  await expect(model.run({}, { signal })).rejects.toThrow('features');
  expect(listeners).toBe(0);
  controller.abort();
  expect(result.logits.dims).toEqual([1, 1]);
});

test(`aborts at random times (seed=${seed}, ${times} of them): a result or the reason, never anything else`, async () => {
  const feeds = longBatch(2);
  const expected = bits(long.runSync(feeds).logits);
  // Half of the times lie within a run as long as this machine's, half after it: each of both ends must be seen.
  const takes: number[] = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    await long.run(feeds);
    takes.push(performance.now() - started);
  }
  const typical = takes.sort((a, b) => a - b)[2]!;
  let done = 0;
  let aborted = 0;
  await fc.assert(
    fc.asyncProperty(fc.noBias(fc.integer({ min: 0, max: 1000 })), async (part) => {
      const controller = new AbortController();
      const reason = Symbol('reason');
      const timer = setTimeout(() => controller.abort(reason), (part / 500) * typical);
      try {
        const { logits } = await long.run(feeds, { signal: controller.signal });
        expect(bits(logits)).toBe(expected);
        done++;
      } catch (error) {
        expect(error).toBe(reason);
        aborted++;
      } finally {
        clearTimeout(timer);
      }
    }),
    { seed, numRuns: times },
  );
  process.stdout.write(`aborts: ${done} runs came to their end, ${aborted} were aborted (seed=${seed})\n`);
  expect(done + aborted).toBe(times);
  expect(done).toBeGreaterThan(0);
  expect(aborted).toBeGreaterThan(0);
}, 1200000);

test('a stream: the reason comes through, the source is closed, the model is usable', async () => {
  const controller = new AbortController();
  let closed = false;
  async function* source() {
    try {
      for (let i = 0; ; i++) yield batchOf(4, i);
    } finally {
      closed = true;
    }
  }
  const reason = { why: 'client left' };
  let count = 0;
  const reading = (async () => {
    for await (const result of model.stream(source(), { signal: controller.signal, concurrency: 3 })) {
      expect(result.logits.dims).toEqual([4, 1]);
      if (++count === 20) controller.abort(reason);
    }
  })();
  await expect(reading).rejects.toBe(reason);
  expect(count).toBe(20);
  expect(closed).toBe(true);
  expect((await model.run(batchOf(1, 1))).logits.dims).toEqual([1, 1]);
});
