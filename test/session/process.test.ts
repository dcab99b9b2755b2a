/** Worker threads, and processes that end in the middle of a run: the exit code that was asked for, never a signal. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(__dirname, '..', '..');
const children = Number(process.env.CHILDREN ?? 8);

/** Every script has `hp`, a model, and a batch that takes long enough to be interrupted. */
const prelude = `
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const hp = require(${JSON.stringify(root)});
const config = hp.presets.decompensation({ layers: 4 });
const options = { device: 'cpu', seed: 1 };
const batchOf = (n) => ({ features: new hp.Tensor('float32', new Float32Array(n * 504 * 76).fill(0.5), [n, 504, 76]) });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
`;

function node(body: string): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, ['-e', `${prelude}(async () => {${body}})();`], {
    encoding: 'utf8',
    timeout: 60000,
    cwd: root,
  });
}

function expectExit(result: SpawnSyncReturns<string>, code: number, stdout: string | RegExp = ''): void {
  expect({ status: result.status, signal: result.signal, stderr: code === 0 ? result.stderr : '' }).toEqual({
    status: code,
    signal: null,
    stderr: '',
  });
  expect(result.stdout.trim()).toMatch(stdout);
}

test('a process ends by itself when its work is done, models not disposed', () => {
  expectExit(
    node(`const m = await hp.HPformer.create(config, options); await m.run(batchOf(1)); console.log('done');`),
    0,
    /^done$/,
  );
});

test('a pending run keeps the process alive until its result came', () => {
  expectExit(
    node(`const m = await hp.HPformer.create(config, options); m.run(batchOf(16)).then(() => console.log('came'));`),
    0,
    /^came$/,
  );
});

test(`process.exit in the middle of runs, queued ones too (${children} processes)`, () => {
  for (let i = 0; i < children; i++) {
    const body = `const m = await hp.HPformer.create(config, options);
      for (let i = 0; i < 6; i++) m.run(batchOf(32)).catch(() => {});
      setTimeout(() => process.exit(${i + 3}), ${i * 4});`;
    expectExit(node(body), i + 3);
  }
}, 1200000);

test(`an unhandled error, and an unhandled abort, in the middle of a run (${children} processes each)`, () => {
  const run = `const m = await hp.HPformer.create(config, options); const c = new AbortController();
    m.run(batchOf(64), { signal: c.signal })`;
  for (let i = 0; i < children; i++) {
    const delay = (i * 7) % 40;
    expectExit(node(`${run}.catch(() => {}); setTimeout(() => { throw new Error('mine'); }, ${delay});`), 1);
    expectExit(node(`${run}; setTimeout(() => c.abort(new Error('mine')), ${delay});`), 1);
  }
}, 1200000);

test('dispose during a run, then the end of the process', () => {
  expectExit(
    node(
      `const m = await hp.HPformer.create(config, options); const r = m.run(batchOf(16)); m.dispose(); await r; console.log('finished');`,
    ),
    0,
    /^finished$/,
  );
});

const worker = (code: string) =>
  `new Worker(${JSON.stringify(`${prelude}(async () => {${code}})();`)}, { eval: true, workerData: 1 })`;

test('the same bits from several workers that share packed weights', () => {
  const inWorker = `const m = await hp.HPformer.create(config, options);
    let out; for (let i = 0; i < 5; i++) out = (await m.run(batchOf(2))).logits.data;
    parentPort.postMessage(Buffer.from(out.buffer).toString('hex'));`;
  const body = `const m = await hp.HPformer.create(config, options);
    const mine = Buffer.from((await m.run(batchOf(2))).logits.data.buffer).toString('hex');
    const all = await Promise.all([1, 2, 3, 4].map(() => new Promise((resolve, reject) => { const w = ${worker(inWorker)}; w.on('message', resolve); w.on('error', reject); })));
    console.log(all.every((hex) => hex === mine) ? 'equal' : 'different');`;
  expectExit(node(body), 0, /^equal$/);
});

test(`a worker terminated in the middle of a run (${children} times), while the main thread computes`, () => {
  const inWorker = `const m = await hp.HPformer.create(config, options); parentPort.postMessage('ready');
    for (;;) await Promise.all([m.run(batchOf(8)), m.run(batchOf(8))]);`;
  const body = `const m = await hp.HPformer.create(config, options); const x = batchOf(4);
    const expected = Buffer.from((await m.run(x)).logits.data.buffer).toString('hex');
    for (let i = 0; i < ${children}; i++) {
      const w = ${worker(inWorker)};
      await new Promise((resolve, reject) => { w.on('message', resolve); w.on('error', reject); });
      const running = m.run(x);
      await sleep(i * 3);
      await w.terminate();
      if (Buffer.from((await running).logits.data.buffer).toString('hex') !== expected) throw new Error('other bits');
    }
    console.log('survived');`;
  expectExit(node(body), 0, /^survived$/);
}, 1200000);

test('the addon loads first in a worker, and in the main thread after that worker is gone', () => {
  const inWorker = `const m = await hp.HPformer.create(config, options); await m.run(batchOf(1)); m.dispose();`;
  const body = `await new Promise((resolve, reject) => { const w = ${worker(inWorker)}; w.on('exit', resolve); w.on('error', reject); });
    const m = await hp.HPformer.create(config, options); await m.run(batchOf(1)); console.log('both');`;
  expectExit(node(body), 0, /^both$/);
});

test('process.exit inside a worker, and of the main thread while workers run', () => {
  const busy = `const m = await hp.HPformer.create(config, options); parentPort.postMessage('ready'); for (;;) await m.run(batchOf(8));`;
  expectExit(node(`const w = ${worker(busy)}; w.on('message', () => setTimeout(() => process.exit(7), 3));`), 7);
  const leaving = `const m = await hp.HPformer.create(config, options); m.run(batchOf(32)).catch(() => {}); setTimeout(() => process.exit(5), 3);`;
  expectExit(
    node(`const w = ${worker(leaving)}; w.on('exit', (code) => console.log('worker', code));`),
    0,
    /^worker 5$/,
  );
});
