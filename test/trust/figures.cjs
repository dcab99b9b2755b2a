// Figures that no test may assert, since they are about time or need a large machine. One line each, and a sum at the end:
// node test/trust/figures.cjs require [times]   milliseconds of require('hpformer') in fresh processes, and of the addon's load
// node test/trust/figures.cjs stop [times]      from an abort to the moment at which the engine is free again
// node test/trust/figures.cjs exit [times]      from process.exit in the middle of runs to the end of the process
// node --expose-gc test/trust/figures.cjs workers [count]   worker threads started and ended, eight at a time; growth of memory
// node --expose-gc test/trust/figures.cjs large             tensors of more than 2^31 elements, checked; needs 16 GB of memory
'use strict';
const { spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const os = require('node:os');
const path = require('node:path');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');

const root = path.join(__dirname, '..', '..');
const load = () => require(root);
const small = (hp) => hp.presets.mortality({ hidden: 16, layers: 1, embedding: { size: 5 } });

/** Median, 99th percentile and largest, as text. */
function spread(values, unit) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].toFixed(1);
  return `median ${at(0.5)} ${unit}, 99 % within ${at(0.99)} ${unit}, largest ${at(1)} ${unit} (${sorted.length} times)`;
}

function requireTimes(times) {
  const script = `
const start = performance.now();
const hp = require(${JSON.stringify(root)});
const loaded = performance.now();
hp.devices();
console.log(loaded - start, performance.now() - loaded);`;
  const rows = Array.from({ length: times }, () => {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    return stdout.split(' ').map(Number);
  });
  const column = (i) => rows.map((row) => row[i]);
  console.log(`require: ${spread(column(0), 'ms')}; then the addon and its devices: ${spread(column(1), 'ms')}`);
}

/** The published decompensation model in the middle of a batch; with one runner, the next run begins when the engine stops. */
async function stopTimes(times) {
  const hp = load();
  const model = await hp.HPformer.create(hp.presets.decompensation(), { device: 'cpu', seed: 1 });
  const features = new hp.Tensor('float32', new Float32Array(64 * 504 * 76).fill(0.5), [64, 504, 76]);
  const whole = performance.now();
  await model.run({ features });
  const took = performance.now() - whole;
  const rejected = [];
  const free = [];
  for (let i = 0; i < times; i++) {
    const own = await hp.HPformer.create(hp.presets.decompensation(), { device: 'cpu', seed: 1 });
    const controller = new AbortController();
    const run = own.run({ features }, { signal: controller.signal }).catch((reason) => reason);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * took * 0.8));
    const start = performance.now();
    controller.abort('enough');
    if ((await run) !== 'enough') continue; // it was done before
    rejected.push(performance.now() - start);
    await own[Symbol.asyncDispose](); // waits for the job itself
    free.push(performance.now() - start);
  }
  model.dispose();
  console.log(
    `stop: a run of ${took.toFixed(0)} ms aborted; rejected: ${spread(rejected, 'ms')}; its job gone: ${spread(free, 'ms')}`,
  );
}

async function exitTimes(times) {
  const script = `
const hp = require(${JSON.stringify(root)});
const features = new hp.Tensor('float32', new Float32Array(32 * 504 * 76).fill(0.5), [32, 504, 76]);
hp.HPformer.create(hp.presets.decompensation(), { device: 'cpu', seed: 1 }).then((model) => {
  for (let i = 0; i < 6; i++) model.run({ features }).catch(() => {});
  setTimeout(() => { process.stdout.write('now'); process.exit(3); }, Number(process.argv[1]));
});`;
  const values = [];
  for (let i = 0; i < times; i++) {
    const child = spawn(process.execPath, ['-e', script, String((i * 7) % 60)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    await once(child.stdout, 'data');
    const start = performance.now();
    const [code, signal] = await exited;
    if (code !== 3 || signal !== null) throw new Error(`expected exit code 3, got ${code} ${signal}`);
    values.push(performance.now() - start);
  }
  console.log(`exit: ${spread(values, 'ms')}; every exit code as asked`);
}

/** Resident memory without the room that V8 keeps for itself, in MiB. */
function resident() {
  global.gc?.();
  const { rss, heapTotal, heapUsed } = process.memoryUsage();
  return (rss - heapTotal + heapUsed) / 2 ** 20;
}

async function one() {
  const hp = load();
  const model = await hp.HPformer.create(small(hp), { device: 'cpu', seed: 3, threads: 1 });
  const { logits } = await model.run({
    features: new hp.Tensor('float32', new Float32Array(240).fill(0.5), [1, 48, 5]),
  });
  parentPort.postMessage(logits.data[0]);
  // Half of them leave their model to the end of the thread.
  if (process.hrtime()[1] % 2 === 0) model.dispose();
}

async function workers(count) {
  const answers = new Set();
  let base = 0;
  const started = Date.now();
  for (let done = 0; done < count; done += 8) {
    await Promise.all(
      Array.from({ length: Math.min(8, count - done) }, async () => {
        const worker = new Worker(__filename);
        worker.once('message', (value) => answers.add(value));
        const [code] = await once(worker, 'exit');
        if (code !== 0) throw new Error(`a worker ended with ${code}`);
      }),
    );
    if (base === 0 && done >= count / 10) base = resident();
  }
  const grown = resident() - base;
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  console.log(
    `workers: ${count} started and ended, ${answers.size} answer, ${grown.toFixed(2)} MiB above warm-up (bound 8), ${seconds} s`,
  );
  if (answers.size !== 1 || grown > 8) process.exitCode = 1;
}

/** An output of more than 2^31 elements, each sequence of which is the same: the last must have the bits of the first. */
async function large() {
  if (os.totalmem() < 16e9) {
    console.log(`large: skipped, this machine has ${(os.totalmem() / 1e9).toFixed(0)} GB of memory, 16 are needed`);
    return;
  }
  const hp = load();
  const model = await hp.HPformer.create(
    hp.presets.decompensation({ embedding: { size: 1 }, hidden: 4, heads: 1, layers: 1, head: { labels: 2048 } }),
    { device: 'cpu', seed: 1, maxBytes: 2 ** 40 },
  );
  const steps = 504;
  const batch = Math.floor(2 ** 31 / (steps * 2048)) + 2;
  const row = Float32Array.from({ length: steps }, (_, i) => Math.sin(i));
  const data = new Float32Array(batch * steps);
  for (let b = 0; b < batch; b++) data.set(row, b * steps);
  const started = Date.now();
  const { logits } = await model.run(
    { features: new hp.Tensor('float32', data, [batch, steps, 1]) },
    { outputs: ['logits'] },
  );
  const alone = model.runSync({ features: new hp.Tensor('float32', row, [1, steps, 1]) }, { outputs: ['logits'] })
    .logits.data;
  const bits = Buffer.from(alone.buffer);
  const size = alone.length;
  let wrong = 0;
  for (let b = 0; b < batch; b++) {
    if (!Buffer.from(logits.data.buffer, logits.data.byteOffset + b * size * 4, size * 4).equals(bits)) wrong++;
  }
  const elements = logits.data.length;
  model.dispose();
  const peak = (process.resourceUsage().maxRSS / 2 ** 20).toFixed(1);
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  console.log(
    `large: [${logits.dims}] is ${elements} elements (2^31 + ${elements - 2 ** 31}), ${wrong} of ${batch} sequences wrong, peak ${peak} GiB, ${seconds} s`,
  );
  if (wrong > 0 || elements <= 2 ** 31) process.exitCode = 1;
}

if (!isMainThread) void one();
else {
  const [which, times] = [process.argv[2], Number(process.argv[3] ?? 0)];
  const all = {
    require: () => requireTimes(times || 20),
    stop: () => stopTimes(times || 100),
    exit: () => exitTimes(times || 50),
    workers: () => workers(times || 10000),
    large,
  };
  if (!Object.hasOwn(all, which ?? '')) {
    console.error(`expected one of ${Object.keys(all).join(', ')}`);
    process.exit(2);
  }
  Promise.resolve(all[which]()).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
