// Many worker threads, one model each (sharing packed weights), many runs each, every answer's bits checked:
// node test/tools/workers.cjs [workers, default 8] [runs each, default 2000]
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { HPformer, presets, Tensor } = require('../../dist/index.js');

const config = presets.mortality({ hidden: 16, layers: 1, embedding: { size: 5 } });
const feedsOf = (salt) => ({
  features: new Tensor(
    'float32',
    Float32Array.from({ length: 48 * 5 }, (_, i) => Math.sin(i + salt)),
    [1, 48, 5],
  ),
});
const bits = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');

async function work({ runs, salt }) {
  const model = await HPformer.create(config, { device: 'cpu', seed: 3 });
  const expected = Array.from({ length: 16 }, (_, i) => bits(model.runSync(feedsOf(salt + i)).logits));
  let wrong = 0;
  for (let at = 0; at < runs; at += 16) {
    const batch = Array.from({ length: Math.min(16, runs - at) }, (_, i) => model.run(feedsOf(salt + i)));
    for (const [i, { logits }] of (await Promise.all(batch)).entries()) if (bits(logits) !== expected[i]) wrong++;
  }
  model.dispose();
  return { wrong, first: expected[0] };
}

async function main() {
  const [workers = 8, runs = 2000] = process.argv.slice(2).map(Number);
  const started = Date.now();
  const results = await Promise.all(
    Array.from(
      { length: workers },
      (_, i) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(__filename, { workerData: { runs, salt: (i % 2) * 100 } });
          worker.once('message', resolve);
          worker.once('error', reject);
        }),
    ),
  );
  const wrong = results.reduce((sum, result) => sum + result.wrong, 0);
  // Workers of equal salt must agree with each other, too.
  const distinct = new Set(results.map(({ first }) => first)).size;
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`${workers} workers of ${runs} runs: ${wrong} wrong answers, ${seconds} s`);
  if (wrong > 0 || distinct !== Math.min(2, workers)) process.exitCode = 1;
}

if (isMainThread) void main();
else void work(workerData).then((result) => parentPort.postMessage(result));
