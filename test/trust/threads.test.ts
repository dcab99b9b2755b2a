/** Workers, buffers that go away in the middle, models that go away in the middle. The long forms are scripts in test/tools. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import fc from 'fast-check';
import { HPformerError, Tensor } from '../../src';
import { seed } from '../seed';
import { batchOf, bits, create } from '../session/models';
import { root } from '../skips';

const times = Number(process.env.TIMES ?? 100);

test('8 workers at once: every answer has the bits of a run alone', () => {
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'test', 'tools', 'workers.cjs'), '8', '100'],
    { encoding: 'utf8', timeout: 60000 },
  );
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/^8 workers of 100 runs: 0 wrong answers/);
});

/** Memory of one kind, filled; what its owner can do to it while the run is on. */
const buffers = {
  transferred: (count: number) => {
    const data = new Float32Array(count);
    return { data, harm: () => structuredClone(data.buffer, { transfer: [data.buffer as ArrayBuffer] }) };
  },
  resized: (count: number) => {
    const Resizable = ArrayBuffer as unknown as new (
      bytes: number,
      options: { maxByteLength: number },
    ) => ArrayBuffer & { resize(bytes: number): void };
    const buffer = new Resizable(count * 4, { maxByteLength: count * 4 });
    return { data: new Float32Array(buffer, 0, count), harm: () => buffer.resize(0) };
  },
  overwritten: (count: number) => {
    const data = new Float32Array(count);
    return { data, harm: () => data.fill(Number.NaN) };
  },
};

test(`buffers transferred, resized, overwritten during ${times} runs (seed=${seed}): the bits of what was submitted`, async () => {
  const model = await create();
  const expected = new Map<string, string>();
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...(Object.keys(buffers) as (keyof typeof buffers)[])),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 0, max: 3 }),
      fc.constantFrom('now', 'microtask', 'immediate'),
      async (kind, batch, salt, when) => {
        const plain = batchOf(batch, salt);
        const key = `${batch} ${salt}`;
        if (!expected.has(key)) expected.set(key, bits(model.runSync(plain).logits));
        const { data, harm } = buffers[kind](batch * 48 * 7);
        data.set(plain.features.data as Float32Array);
        const running = model.run({ features: new Tensor('float32', data, [batch, 48, 7]) });
        if (when === 'microtask') await Promise.resolve();
        if (when === 'immediate') await new Promise((resolve) => setImmediate(resolve));
        harm();
        expect(bits((await running).logits)).toBe(expected.get(key));
      },
    ),
    { seed, numRuns: times },
  );
  model.dispose();
}, 1200000);

test(`a model disposed of at random moments of its runs (seed=${seed}): a result with the right bits, or _DISPOSED`, async () => {
  const keeper = await create();
  const expected = bits(keeper.runSync(batchOf(3, 1)).logits);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 3 }), async (before, turns) => {
      const model = await create();
      const runs = Array.from({ length: before }, () => model.run(batchOf(3, 1)));
      for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
      model.dispose();
      for (const { logits } of await Promise.all(runs)) expect(bits(logits)).toBe(expected);
      const late = await model.run(batchOf(3, 1)).catch((error) => error);
      expect(late).toBeInstanceOf(HPformerError);
      expect(late.code).toBe('ERR_HPFORMER_DISPOSED');
      await model[Symbol.asyncDispose]();
    }),
    { seed, numRuns: Math.ceil(times / 2) },
  );
  keeper.dispose();
}, 1200000);

test('64 runs of 64 batches at once: the bits of single runs', async () => {
  const model = await create({ threads: 1 });
  const results = await Promise.all(Array.from({ length: 64 }, (_, i) => model.run(batchOf(1 + (i % 5), i))));
  for (const [i, { logits }] of results.entries())
    expect(bits(logits)).toBe(bits(model.runSync(batchOf(1 + (i % 5), i)).logits));
  model.dispose();
});

test('a run started inside the callback of another, and by a handler that throws', async () => {
  const model = await create();
  const expected = bits(model.runSync(batchOf(2, 5)).logits);
  const inner = await model.run(batchOf(2, 5)).then(() => model.run(batchOf(2, 5)));
  expect(bits(inner.logits)).toBe(expected);
  const thrown = model.run(batchOf(2, 5)).then(() => {
    throw new Error('mine');
  });
  await expect(thrown).rejects.toThrow('mine');
  expect(bits((await model.run(batchOf(2, 5))).logits)).toBe(expected);
  model.dispose();
});
