// How free the event loop stays: a timer asked for every millisecond, its delay while nothing runs and while a batch of about
// two seconds computes on one thread of ours. Prints both 99th percentiles; asserts nothing.
//   node bench/eventLoop.cjs [--seconds 2] [--json FILE]
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { HPformer, Tensor, presets } = require(path.join(__dirname, '..'));

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};
const now = () => Number(process.hrtime.bigint()) / 1e6;

/** Delays in milliseconds of a 1 ms timer beyond the millisecond asked for, until `done`. */
async function delays(done) {
  const list = [];
  let running = true;
  done.finally(() => {
    running = false;
  });
  while (running) {
    const start = now();
    await new Promise((resolve) => setTimeout(resolve, 1));
    list.push(Math.max(0, now() - start - 1));
  }
  return list.sort((a, b) => a - b);
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

async function main() {
  const seconds = Number(option('seconds', '2'));
  const model = await HPformer.create(presets.decompensation(), { device: 'cpu', threads: 1, seed: 1 });
  const batchOf = (batch) => ({
    features: new Tensor(
      'float32',
      Float32Array.from({ length: batch * 504 * 76 }, (_, i) => Math.sin(i)),
      [batch, 504, 76],
    ),
  });
  await model.run(batchOf(2));
  const start = now();
  await model.run(batchOf(8));
  const batch = Math.max(1, Math.ceil((8 * seconds * 1000) / (now() - start)));
  const feeds = batchOf(batch);

  const idle = await delays(new Promise((resolve) => setTimeout(resolve, seconds * 1000)));
  let submit = 0;
  const began = now();
  const run = model.run(feeds);
  submit = now() - began;
  const busy = await delays(run);
  const took = now() - began;

  const row = {
    batch,
    milliseconds: took,
    submitMilliseconds: submit,
    idle: { count: idle.length, p50: quantile(idle, 0.5), p99: quantile(idle, 0.99), max: idle.at(-1) },
    busy: { count: busy.length, p50: quantile(busy, 0.5), p99: quantile(busy, 0.99), max: busy.at(-1) },
  };
  const line = (name, { count, p50, p99, max }) =>
    `${name.padEnd(22)} ${String(count).padStart(6)} ticks   delay p50 ${p50.toFixed(3)} ms   p99 ${p99.toFixed(3)} ms   max ${max.toFixed(3)} ms`;
  console.log(
    `one run of ${batch} sequences of 504 steps, threads: 1: ${took.toFixed(0)} ms; submit took ${submit.toFixed(3)} ms`,
  );
  console.log(line('idle', row.idle));
  console.log(line('while the run computes', row.busy));
  const file = option('json');
  if (file) fs.writeFileSync(file, `${JSON.stringify({ rows: [row] }, null, 2)}\n`);
  model.dispose();
}

void main();
