import fc from 'fast-check';
import { HPformerError } from '../../../src';
import { mapInOrder } from '../../../src/model/stream';
import { seed } from '../../seed';

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}

/** A source that counts how far it was read and whether it was closed. */
function counted(length: number) {
  const state = { read: 0, closed: 0 };
  const source: AsyncIterable<number> = {
    [Symbol.asyncIterator]() {
      return {
        async next() {
          return state.read < length
            ? { done: false as const, value: state.read++ }
            : { done: true as const, value: undefined };
        },
        async return() {
          state.closed++;
          return { done: true as const, value: undefined };
        },
      };
    },
  };
  return { state, source };
}

test(`results keep the order of the source, whatever finishes first (seed=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(4), { maxLength: 30 }),
      fc.integer({ min: 1, max: 8 }),
      async (delays, concurrency) => {
        const map = async (i: number) => {
          for (let k = 0; k < delays[i]!; k++) await tick();
          return i * 10;
        };
        const results = await collect(mapInOrder(delays.keys(), map, { concurrency }));
        expect(results).toEqual(delays.map((_, i) => i * 10));
      },
    ),
    { seed, numRuns: 60 },
  );
});

test('at most `concurrency` items are in flight or waiting, and all of them are used', async () => {
  const { state, source } = counted(40);
  let flying = 0;
  let most = 0;
  const stream = mapInOrder(
    source,
    async (i) => {
      most = Math.max(most, ++flying);
      await tick();
      flying--;
      return i;
    },
    { concurrency: 3 },
  );
  let taken = 0;
  for await (const i of stream) {
    expect(i).toBe(taken++);
    await sleep(1);
    // A slow consumer: one in its hands, three ahead.
    expect(state.read).toBeLessThanOrEqual(taken + 3);
  }
  expect(most).toBe(3);
  expect(taken).toBe(40);
  expect(state.closed).toBe(0);
});

test('nothing is read before the first result is asked for', async () => {
  const { state, source } = counted(5);
  const stream = mapInOrder(source, async (i) => i, {});
  await tick();
  expect(state.read).toBe(0);
  await stream.return();
  expect(state.read).toBe(0);
});

test('a result is handed over while the source is still waiting for its next item', async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  async function* source() {
    yield 1;
    await gate;
    yield 2;
  }
  const stream = mapInOrder(source(), async (i) => i, { concurrency: 4 });
  expect((await stream.next()).value).toBe(1);
  release();
  expect((await stream.next()).value).toBe(2);
  expect((await stream.next()).done).toBe(true);
});

test('leaving the loop aborts what is in flight and closes the source', async () => {
  const { state, source } = counted(100);
  const signals: AbortSignal[] = [];
  const map = (i: number, signal: AbortSignal) => {
    signals.push(signal);
    return i === 0
      ? Promise.resolve(0)
      : new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  };
  for await (const i of mapInOrder(source, map, { concurrency: 4 })) {
    expect(i).toBe(0);
    break;
  }
  expect(state.closed).toBe(1);
  expect(signals.every((signal) => signal.aborted)).toBe(true);
  expect(state.read).toBeLessThanOrEqual(5);
});

test('an error comes after the results before it, unchanged, and ends everything', async () => {
  const { state, source } = counted(100);
  const mine = new Error('third');
  const seen: number[] = [];
  const stream = mapInOrder(source, async (i) => (i === 2 ? Promise.reject(mine) : i), { concurrency: 5 });
  await expect(
    (async () => {
      for await (const i of stream) seen.push(i);
    })(),
  ).rejects.toBe(mine);
  expect(seen).toEqual([0, 1]);
  expect(state.closed).toBe(1);
  expect((await stream.next()).done).toBe(true);
});

test("the source's own error comes in its place and the source is not closed again", async () => {
  const mine = new Error('source');
  let closed = false;
  async function* source() {
    try {
      yield 1;
      throw mine;
    } finally {
      closed = true;
    }
  }
  const stream = mapInOrder(source(), async (i) => i, {});
  expect((await stream.next()).value).toBe(1);
  await expect(stream.next()).rejects.toBe(mine);
  expect(closed).toBe(true);
});

test('a source of promises is closed when one of them rejects', async () => {
  let closed = false;
  function* source() {
    try {
      yield Promise.resolve(1);
      yield Promise.reject(new Error('no such batch'));
      yield Promise.resolve(3);
    } finally {
      closed = true;
    }
  }
  const seen: number[] = [];
  const read = (async () => {
    for await (const item of mapInOrder(source(), async (i: number) => i, { concurrency: 2 })) seen.push(item);
  })();
  await expect(read).rejects.toThrow('no such batch');
  expect([seen, closed]).toEqual([[1], true]);
});

test('closing ends it at once, also while the source hangs', async () => {
  const closing = new AbortController();
  const never = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<IteratorResult<number>>(() => {}) }) };
  const stream = mapInOrder(never, async (i: number) => i, { closing: closing.signal });
  const next = stream.next();
  await tick();
  closing.abort();
  expect(await next).toEqual({ done: true, value: undefined });
});

test('an abort rejects with its reason, also while the source hangs', async () => {
  const controller = new AbortController();
  const reason = { any: 'value' };
  async function* source() {
    yield 1;
    await new Promise(() => {});
  }
  const stream = mapInOrder(source(), async (i) => i, { signal: controller.signal });
  expect((await stream.next()).value).toBe(1);
  setImmediate(() => controller.abort(reason));
  await expect(stream.next()).rejects.toBe(reason);
  const late = mapInOrder([1], async (i) => i, { signal: controller.signal });
  await expect(late.next()).rejects.toBe(reason);
});

test.each([0, -1, 1.5, 1025, Number.NaN, '2'])('concurrency %p is refused', async (concurrency) => {
  const stream = mapInOrder([1], async (i) => i, { concurrency: concurrency as number });
  const code = typeof concurrency === 'number' ? 'ERR_HPFORMER_RANGE' : 'ERR_HPFORMER_TYPE';
  await expect(stream.next()).rejects.toMatchObject({ code });
});

test.each([null, undefined, 5, {}])('%p is no source', async (source) => {
  await expect(mapInOrder(source as never, async (i: number) => i, {}).next()).rejects.toThrow(HPformerError);
});

test('many items in flight are no reason for a warning', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  const listen = async (item: number, signal: AbortSignal) => {
    const onAbort = () => {};
    signal.addEventListener('abort', onAbort);
    await new Promise((resolve) => setImmediate(resolve));
    signal.removeEventListener('abort', onAbort);
    return item;
  };
  const items = Array.from({ length: 40 }, (_, i) => i);
  const got: number[] = [];
  for await (const item of mapInOrder(items, listen, { concurrency: 20 })) got.push(item);
  await new Promise((resolve) => setTimeout(resolve, 5));
  process.off('warning', onWarning);
  expect(got).toEqual(items);
  expect(warnings).toEqual([]);
});
