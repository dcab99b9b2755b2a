// Long runs and many life cycles under a look at the resident memory: node test/tools/soak.cjs [runs] [cycles]
// Default 1,000,000 runs at batch 1 and 10,000 create, run, dispose. Growth after warm-up is printed and judged.
'use strict';
const { HPformer, presets, Tensor } = require('../../dist/index.js');

const [runs = 1_000_000, cycles = 10_000] = process.argv.slice(2).map(Number);
const config = presets.mortality({ hidden: 32, layers: 2, embedding: { size: 16 } });
const features = new Tensor(
  'float32',
  Float32Array.from({ length: 48 * 16 }, (_, i) => Math.sin(i)),
  [1, 48, 16],
);
/** Resident memory without the room that V8 keeps for itself: what stays of its heap is counted as used. */
const megabytes = () => {
  global.gc?.();
  const { rss, heapTotal, heapUsed } = process.memoryUsage();
  return (rss - heapTotal + heapUsed) / 2 ** 20;
};

/** Runs `body` `count` times; answers the growth of resident memory after the first tenth, in MiB. */
async function growth(name, count, body) {
  const warm = Math.max(1, Math.floor(count / 10));
  let base = 0;
  const started = Date.now();
  for (let i = 0; i < count; i++) {
    await body(i);
    if (i === warm) base = megabytes();
    if (i > warm && i % warm === 0) {
      console.log(
        `${name} ${i}: ${(megabytes() - base).toFixed(2)} MiB above warm-up, ${((Date.now() - started) / 1000).toFixed(0)} s`,
      );
    }
  }
  return megabytes() - base;
}

async function main() {
  const model = await HPformer.create(config, { device: 'cpu', threads: 1 });
  const first = (await model.run({ features })).logits.data[0];
  const ran = await growth('runs', runs, async () => {
    const { logits } = await model.run({ features });
    if (logits.data[0] !== first) throw new Error(`another answer: ${logits.data[0]}, first ${first}`);
  });
  model.dispose();
  const cycled = await growth('cycles', cycles, async (i) => {
    const one = await HPformer.create(config, { device: 'cpu', threads: 1, seed: i });
    await one.run({ features });
    one.dispose();
  });
  const verdict = (value, bound) => `${value.toFixed(2)} MiB (bound ${bound})`;
  console.log(`${runs} runs: ${verdict(ran, 1)}; ${cycles} life cycles: ${verdict(cycled, 2)}`);
  if (ran > 1 || cycled > 2) process.exitCode = 1;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
