import { Readable } from 'node:stream';
import type { HPformer } from '../../src';
import { batchOf, bits, create } from './models';

let model: HPformer;
beforeAll(async () => {
  model = await create();
});
afterAll(() => model.dispose());

test('results come in order, with the bits of single runs, for batches of any size', async () => {
  const sizes = [9, 1, 30, 2, 2, 64, 1, 5];
  const expected = sizes.map((size, i) => bits(model.runSync(batchOf(size, i)).probabilities));
  const source = sizes.map((size, i) => batchOf(size, i));
  const got: string[] = [];
  for await (const { probabilities } of model.stream(source, { concurrency: 8 })) got.push(bits(probabilities));
  expect(got).toEqual(expected);
});

test('memory stays bounded: the source is never read ahead of the consumer by more than the concurrency', async () => {
  let read = 0;
  async function* source() {
    for (; read < 300; ) {
      read++;
      yield batchOf(8, read);
    }
  }
  let taken = 0;
  for await (const { logits } of model.stream(source(), { outputs: ['logits'], concurrency: 2 })) {
    expect(logits.dims).toEqual([8, 1]);
    taken++;
    if (taken % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(read - taken).toBeLessThanOrEqual(2);
  }
  expect(taken).toBe(300);
});

test('leaving early closes the source and leaves nothing running', async () => {
  const mine = await create();
  let closed = false;
  async function* source() {
    try {
      for (let i = 0; ; i++) yield batchOf(16, i);
    } finally {
      closed = true;
    }
  }
  let count = 0;
  for await (const result of mine.stream(source(), { outputs: ['keys'], concurrency: 6 })) {
    expect(Object.keys(result)).toEqual(['keys']);
    if (++count === 5) break;
  }
  expect(closed).toBe(true);
  await mine[Symbol.asyncDispose]();
});

test('a bad batch in the middle: the results before it, then its error', async () => {
  const seen: number[] = [];
  const stream = model.stream([batchOf(1, 0), batchOf(2, 1), { features: new Float32Array(5) }, batchOf(3, 2)]);
  const reading = (async () => {
    for await (const { logits } of stream) seen.push(logits.dims[0]!);
  })();
  await expect(reading).rejects.toMatchObject({ code: 'ERR_HPFORMER_SHAPE' });
  expect(seen).toEqual([1, 2]);
});

test('several streams of one model at once', async () => {
  const read = async (salt: number) => {
    const got: string[] = [];
    for await (const { logits } of model.stream(Array.from({ length: 12 }, (_, i) => batchOf(3, salt * 100 + i))))
      got.push(bits(logits));
    return got;
  };
  const all = await Promise.all([0, 1, 2, 3].map(read));
  for (const [salt, got] of all.entries()) {
    expect(got).toEqual(Array.from({ length: 12 }, (_, i) => bits(model.runSync(batchOf(3, salt * 100 + i)).logits)));
  }
});

test('a reader that goes away ends it at once, also while the source waits', async () => {
  const own = await create();
  let closed = 0;
  async function* source() {
    try {
      yield batchOf(1, 1);
      await new Promise(() => {});
    } finally {
      closed++;
    }
  }
  const results = own.stream(source());
  expect((await results.next()).done).toBe(false);
  const waiting = results.next();
  expect(await results.return()).toEqual({ done: true, value: undefined });
  expect(await waiting).toEqual({ done: true, value: undefined });
  // The way of an HTTP answer.
  const readable = Readable.from(own.stream(source()));
  await new Promise((resolve) => readable.once('data', resolve));
  readable.destroy();
  await new Promise((resolve) => readable.once('close', resolve));
  await own[Symbol.asyncDispose]();
  // A generator that waits for something else cannot be closed before it goes on.
  expect(closed).toBe(0);
});
