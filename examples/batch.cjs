// A file in, a file out, in bounded memory: JSON lines {"id": ..., "features": [[...], ...]} become CSV lines id,probability.
// node examples/batch.cjs <in.jsonl> <out.csv> [rows a batch, default 64]
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { pipeline } = require('node:stream/promises');
const { HPformer, Tensor } = require(process.env.HPFORMER_MODULE ?? 'hpformer');

async function main() {
  const [from, to, size = '64'] = process.argv.slice(2);
  if (!to) throw new Error('usage: node examples/batch.cjs <in.jsonl> <out.csv> [rows a batch]');
  const model = await HPformer.load(path.join(__dirname, 'nafld-mortality', 'model.safetensors'));
  const { embedding, segments } = model.config;

  /** One line as a row: its own shape is looked at, since two wrong rows can make a batch of the right size. */
  const rowOf = (line, number) => {
    const { id, features } = JSON.parse(line);
    const numbers = (row) => Array.isArray(row) && row.length === embedding.size && row.every(Number.isFinite);
    if (!Array.isArray(features) || features.length !== segments.steps || !features.every(numbers))
      throw new Error(
        `${from} line ${number}: expected features of ${segments.steps} rows of ${embedding.size} numbers`,
      );
    if (typeof id !== 'string' && !Number.isSafeInteger(id))
      throw new Error(`${from} line ${number}: expected an id, a text or a whole number up to 2^53 - 1`);
    return { id, features };
  };

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
    let number = 0;
    for await (const line of readline.createInterface({ input: fs.createReadStream(from) })) {
      number++;
      if (line.trim() === '') continue;
      rows.push(rowOf(line, number));
      if (rows.length === Number(size)) yield flush();
    }
    if (rows.length > 0) yield flush();
  }

  let count = 0;
  async function* lines() {
    yield 'id,probability\n';
    for await (const { probabilities } of model.stream(batches(), { concurrency: 2 })) {
      const batch = ids.shift();
      count += batch.length;
      yield batch.map((id, i) => `${csvField(id)},${probabilities.data[i]}\n`).join('');
    }
  }
  // Waits for a slow disk, and a failure of either side ends both.
  await pipeline(lines(), fs.createWriteStream(to));
  model.dispose();
  console.log(`${count} rows: ${to}`);
}

/** A text with commas, quotes or line ends stays one field. */
function csvField(value) {
  return /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
}

main().catch((error) => {
  console.error(`${error.message}${error.code ? ` (${error.code})` : ''}`);
  process.exitCode = 1;
});
