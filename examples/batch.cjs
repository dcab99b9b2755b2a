// A file in, a file out, in bounded memory: JSON lines {"id": ..., "features": [[...], ...]} become CSV lines id,probability.
// node examples/batch.cjs <in.jsonl> <out.csv> [rows a batch, default 64]
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { once } = require('node:events');
const { HPformer, Tensor } = require(process.env.HPFORMER_MODULE ?? 'hpformer');

async function main() {
  const [from, to, size = '64'] = process.argv.slice(2);
  if (!to) throw new Error('usage: node examples/batch.cjs <in.jsonl> <out.csv> [rows a batch]');
  const model = await HPformer.load(path.join(__dirname, 'nafld-mortality', 'model.safetensors'));
  const { embedding, segments } = model.config;

  /** Ids of the batches that the model has, in order: the stream keeps that order. */
  const ids = [];
  async function* batches() {
    let rows = [];
    const flush = () => {
      const data = Float32Array.from(rows.flatMap((row) => row.features.flat()));
      ids.push(rows.map((row) => row.id));
      const features = new Tensor('float32', data, [rows.length, segments.steps, embedding.size]);
      rows = [];
      return { features };
    };
    for await (const line of readline.createInterface({ input: fs.createReadStream(from) })) {
      if (line.trim() === '') continue;
      rows.push(JSON.parse(line));
      if (rows.length === Number(size)) yield flush();
    }
    if (rows.length > 0) yield flush();
  }

  const out = fs.createWriteStream(to);
  out.write('id,probability\n');
  let count = 0;
  for await (const { probabilities } of model.stream(batches(), { concurrency: 2 })) {
    const batch = ids.shift();
    const lines = batch.map((id, i) => `${id},${probabilities.data[i]}\n`);
    count += batch.length;
    if (!out.write(lines.join(''))) await once(out, 'drain');
  }
  out.end();
  await once(out, 'finish');
  model.dispose();
  console.log(`${count} rows: ${to}`);
}

main().catch((error) => {
  console.error(`${error.message}${error.code ? ` (${error.code})` : ''}`);
  process.exitCode = 1;
});
