/**
 * Abort, streams, disposal and the end of processes and workers while a CUDA device computes. What happens between the slices
 * of one batch: test/native/cuda_slices_test.cc.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { HPformer, HPformerError, presets } from '../../src';
import { batchOf, bits } from '../session/models';
import { cudaLibrary, describeUnless, root, withoutCudaLibrary } from '../skips';
import { useCudaLibrary } from './driver';

const config = presets.mortality({ embedding: { kind: 'features', size: 7 }, hidden: 64, layers: 1 });
const create = (options = {}) => HPformer.create(config, { device: 'cuda:0', seed: 5, ...options });
/** Long enough to be caught in the middle. */
const many = 48;

describeUnless(withoutCudaLibrary(), 'life on cuda:0', () => {
  let model: HPformer;
  let expected: string;
  beforeAll(async () => {
    await useCudaLibrary();
    model = await create();
    expected = bits((await model.run(batchOf(many, 1))).logits);
  });
  afterAll(() => model?.dispose());

  test('aborted while it computes: rejects with the reason, the next run has the same bits', async () => {
    for (const delay of [0, 1, 4, 10]) {
      const controller = new AbortController();
      const reason = new Error('enough');
      const runs = Array.from({ length: 4 }, () => model.run(batchOf(many, 1), { signal: controller.signal }));
      setTimeout(() => controller.abort(reason), delay);
      for (const run of await Promise.allSettled(runs)) {
        if (run.status === 'rejected') expect(run.reason).toBe(reason);
        else expect(bits(run.value.logits)).toBe(expected);
      }
      if (delay === 0) expect((await Promise.allSettled(runs)).some(({ status }) => status === 'rejected')).toBe(true);
      expect(bits((await model.run(batchOf(many, 1))).logits)).toBe(expected);
    }
  });

  test('aborted while queued: the runs around it are untouched', async () => {
    const controller = new AbortController();
    const runs = Array.from({ length: 12 }, (_, i) =>
      model.run(batchOf(many, 1), i % 3 === 1 ? { signal: controller.signal } : {}),
    );
    controller.abort('queued');
    for (const [i, run] of (await Promise.allSettled(runs)).entries()) {
      if (i % 3 === 1) expect(run).toEqual({ status: 'rejected', reason: 'queued' });
      else expect(bits((run as PromiseFulfilledResult<Awaited<(typeof runs)[0]>>).value.logits)).toBe(expected);
    }
  });

  test('a stream: in order, with the bits of single runs; leaving it early closes its source', async () => {
    const sizes = [3, 1, 17, 2];
    const wanted = sizes.map((size, i) => bits(model.runSync(batchOf(size, i)).probabilities));
    let closed = false;
    async function* source() {
      try {
        for (let i = 0; ; i++) yield batchOf(sizes[i % 4]!, i % 4);
      } finally {
        closed = true;
      }
    }
    let count = 0;
    for await (const { probabilities } of model.stream(source(), { concurrency: 4 })) {
      expect(bits(probabilities)).toBe(wanted[count % 4]);
      if (++count === 10) break;
    }
    expect(closed).toBe(true);
  });

  test('disposed while it computes: those runs finish, later ones say so, other models go on', async () => {
    const mine = await create({ precision: 'bfloat16' });
    const wanted = bits(mine.runSync(batchOf(many, 1)).logits);
    const runs = Array.from({ length: 6 }, () => mine.run(batchOf(many, 1)));
    const gone = mine[Symbol.asyncDispose]();
    for (const { logits } of await Promise.all(runs)) expect(bits(logits)).toBe(wanted);
    await gone;
    const late = await mine.run(batchOf(1, 1)).catch((error) => error);
    expect(late).toBeInstanceOf(HPformerError);
    expect(late.code).toBe('ERR_HPFORMER_DISPOSED');
    expect(bits((await model.run(batchOf(many, 1))).logits)).toBe(expected);
  });
});

describeUnless(withoutCudaLibrary(), 'processes and workers on cuda:0', () => {
  /** Every script has `hp`, `create()`, a batch that takes long enough to be interrupted, `worker(body)`. */
  const prelude = `
    const { Worker, parentPort } = require('node:worker_threads');
    const hp = require(${JSON.stringify(root)});
    const create = () => hp.HPformer.create(hp.presets.mortality({ embedding: { kind: 'features', size: 7 }, hidden: 64, layers: 1 }), { device: 'cuda:0', seed: 5 });
    const batch = (n = ${many}) => ({ features: new hp.Tensor('float32', new Float32Array(n * 48 * 7).fill(0.5), [n, 48, 7]) });
    const hex = ({ logits }) => Buffer.from(logits.data.buffer).toString('hex');
    const message = (w) => new Promise((resolve, reject) => { w.on('message', resolve); w.on('error', reject); });
  `;
  const worker = (body: string) =>
    `new Worker(${JSON.stringify(`${prelude}(async () => {${body}})();`)}, { eval: true })`;

  function node(body: string): SpawnSyncReturns<string> {
    return spawnSync(process.execPath, ['-e', `${prelude}(async () => {${body}})();`], {
      encoding: 'utf8',
      timeout: 50000,
      cwd: root,
      env: { ...process.env, HPFORMER_CUDA_LIBRARY: cudaLibrary() },
    });
  }

  function expectExit(result: SpawnSyncReturns<string>, code: number, stdout = ''): void {
    const { status, signal, stderr } = result;
    expect({ status, signal, stderr: code === 0 ? stderr : '', stdout: result.stdout.trim() }).toEqual({
      ...{ status: code, signal: null, stderr: '', stdout },
    });
  }

  test('a process ends by itself, its model not disposed', () => {
    expectExit(node(`const m = await create(); await m.run(batch(2)); console.log('done');`), 0, 'done');
  });

  test('process.exit in the middle of runs, queued ones too', () => {
    for (const delay of [0, 15, 60]) {
      const body = `const m = await create(); await m.run(batch(1));
        for (let i = 0; i < 6; i++) m.run(batch()).catch(() => {});
        setTimeout(() => process.exit(${delay + 3}), ${delay});`;
      expectExit(node(body), delay + 3);
    }
  });

  test('an unhandled abort in the middle of a run', () => {
    const body = `const m = await create(); await m.run(batch(1)); const c = new AbortController();
      m.run(batch(), { signal: c.signal }); setTimeout(() => c.abort(new Error('mine')), 10);`;
    expectExit(node(body), 1);
  });

  test('workers that share packed weights give the bits of the main thread', () => {
    const inWorker = `const m = await create(); let out;
      for (let i = 0; i < 3; i++) out = hex(await m.run(batch(8)));
      parentPort.postMessage(out);`;
    const body = `const m = await create(); const mine = hex(await m.run(batch(8)));
      const all = await Promise.all([message(${worker(inWorker)}), message(${worker(inWorker)})]);
      console.log(all.every((other) => other === mine) ? 'equal' : 'different');`;
    expectExit(node(body), 0, 'equal');
  });

  test('a worker terminated in the middle of its runs; the main thread computes on', () => {
    const inWorker = `const m = await create(); await m.run(batch(1)); parentPort.postMessage('ready');
      for (;;) await Promise.all([m.run(batch()), m.run(batch())]);`;
    const body = `const m = await create(); const mine = hex(await m.run(batch()));
      for (const delay of [0, 20]) {
        const w = ${worker(inWorker)};
        await message(w);
        const running = m.run(batch());
        await new Promise((resolve) => setTimeout(resolve, delay));
        await w.terminate();
        if (hex(await running) !== mine) throw new Error('other bits');
      }
      console.log('survived');`;
    expectExit(node(body), 0, 'survived');
  });
});
