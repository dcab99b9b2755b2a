// A pool of worker threads, each with the same model (its packed weights are shared by the process): for services whose own
// JavaScript is the bottleneck. A run does not need one: it computes off the event loop, on as many threads as it may.
// node examples/workers.cjs [workers, default 2] [batches, default 64]
'use strict';
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { HPformer, Tensor } = require(process.env.HPFORMER_MODULE ?? 'hpformer');

const file = path.join(__dirname, 'nafld-mortality', 'model.safetensors');

/**
 * Hands each job to the worker that has fewest. Answers carry the number of their job: those of one worker need not come in order.
 * A worker that dies fails what it had and gets nothing more; the others go on.
 */
class Pool {
  constructor(size) {
    this.jobs = 0;
    this.hands = Array.from({ length: size }, () => {
      const worker = new Worker(__filename);
      const hand = { worker, waiting: new Map() };
      worker.on('message', ({ job, error, ...answer }) => {
        const { resolve, reject } = hand.waiting.get(job);
        hand.waiting.delete(job);
        if (error) reject(Object.assign(new Error(error.message), { code: error.code }));
        else resolve(answer);
      });
      const drop = (error) => {
        this.hands = this.hands.filter((other) => other !== hand);
        for (const { reject } of hand.waiting.values()) reject(error);
        hand.waiting.clear();
      };
      worker.on('error', drop);
      // A worker can also end without an error: by process.exit, by terminate.
      worker.on('exit', (code) => drop(new Error(`the worker ended with code ${code}`)));
      return hand;
    });
  }

  run(data, dims) {
    if (this.hands.length === 0) return Promise.reject(new Error('no worker is left'));
    const hand = this.hands.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
    const job = this.jobs++;
    return new Promise((resolve, reject) => {
      hand.waiting.set(job, { resolve, reject });
      // Transferred, not copied.
      hand.worker.postMessage({ job, data, dims }, [data.buffer]);
    });
  }

  close() {
    return Promise.all(this.hands.map(({ worker }) => worker.terminate()));
  }
}

async function work() {
  const model = await HPformer.load(file, { threads: 1 });
  parentPort.on('message', async ({ job, data, dims }) => {
    try {
      const { probabilities } = await model.run({ features: new Tensor('float32', data, dims) });
      parentPort.postMessage({ job, data: probabilities.data, dims: probabilities.dims }, [probabilities.data.buffer]);
    } catch ({ message, code }) {
      parentPort.postMessage({ job, error: { message, code } });
    }
  });
}

async function main() {
  const [size = 2, batches = 64] = process.argv.slice(2).map(Number);
  const pool = new Pool(size);
  const batch = (seed) => Float32Array.from({ length: 8 * 48 * 31 }, (_, i) => Math.sin(i + seed));
  const answers = await Promise.all(Array.from({ length: batches }, (_, i) => pool.run(batch(i % 4), [8, 48, 31])));
  const first = answers.slice(0, 4).map(({ data }) => data.join());
  const equal = answers.every(({ data }, i) => data.join() === first[i % 4]);
  const refused = await pool.run(new Float32Array(30), [1, 1, 30]).catch((error) => error.code);
  await pool.close();
  console.log(
    `${answers.length} batches on ${size} workers, ${equal ? 'equal' : 'DIFFERENT'} answers; a wrong shape: ${refused}`,
  );
  if (!equal) process.exitCode = 1;
}

module.exports = { Pool };
if (!isMainThread) void work();
else if (require.main === module) void main();
