// `npm run demo`: real patients through a real trained model, from a fresh clone. Needs Node only; what is missing (dependencies,
// addon, TypeScript) is made first. Writes scores.csv and compares the result with what the authors' PyTorch code gave.
'use strict';
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { ensure } = require('../binding/ensure.cjs');

const root = path.join(__dirname, '..');
const data = path.join(__dirname, 'nafld');
const bound = 3e-6;

/** Rows of a small CSV file as objects. */
function table(file) {
  const [header, ...lines] = fs.readFileSync(file, 'utf8').trim().split('\n');
  const names = header.split(',');
  return lines.map((line) => Object.fromEntries(line.split(',').map((value, i) => [names[i], value])));
}

/** A command of the package, run here; its exit code must be 0. */
async function hpformer(...args) {
  const { main } = require('../dist/cli/main.js');
  const code = await main(args, process);
  if (code !== 0) process.exit(code);
}

/** Largest difference to the expected probabilities, over all their patients and labels. */
function agreement(scores, expected, columns) {
  const byPatient = new Map(scores.map((row) => [row.patient, row]));
  let worst = 0;
  for (const want of expected) {
    const got = byPatient.get(want.patient);
    if (!got) throw new Error(`patient ${want.patient} was not scored`);
    for (const column of columns) {
      const difference = Math.abs(Number(got[column]) - Number(want[column]));
      // Not Math.max: a NaN must not look like agreement.
      if (!(difference <= worst)) worst = difference;
    }
  }
  return worst;
}

/** The model's input arrays against the published SHA-256 of each part: float32, people by ascending id, padding included. */
async function showArrays() {
  const { labelOf, nafldBatches, parseRecipe, partOf } = require('../dist/data/nafld/index.js');
  const { formatTable } = require('../dist/cli/table.js');
  const folder = path.join(__dirname, 'nafld-mortality');
  const recipe = parseRecipe(JSON.parse(fs.readFileSync(path.join(folder, 'features.json'), 'utf8')));
  const expected = JSON.parse(fs.readFileSync(path.join(folder, 'example.json'), 'utf8')).sha256;
  const parts = Object.fromEntries(
    Object.keys(expected).map((part) => [part, { people: 0, hash: createHash('sha256') }]),
  );
  const keep = (person) => labelOf(person, 'death', recipe.horizonDays) !== undefined;
  for await (const { people, feeds } of nafldBatches(data, recipe, { outcomes: true, keep })) {
    const values = recipe.steps * recipe.width;
    for (const [i, person] of people.entries()) {
      const part = parts[partOf(person.matchedSet, recipe)];
      const row = feeds.features.data.subarray(i * values, (i + 1) * values);
      part.people++;
      part.hash.update(Buffer.from(row.buffer, row.byteOffset, row.byteLength));
    }
  }
  const rows = Object.entries(parts).map(([name, { people, hash }]) => {
    const digest = hash.digest('hex');
    if (digest !== expected[name]) process.exitCode = 1;
    return [name, String(people), digest, digest === expected[name] ? 'as published' : 'DIFFERS'];
  });
  console.log(formatTable(['part', 'people', 'SHA-256 of the input array', ''], rows));
}

async function showModel(name, out) {
  const model = path.join(__dirname, name);
  const file = path.join(root, out);
  await hpformer('predict', model, data, '--out', file);
  const scores = table(file);
  const expected = table(path.join(model, 'expected.csv'));
  const columns = Object.keys(scores[0]).slice(1);
  const worst = agreement(scores, expected, columns);
  const verdict = worst <= bound ? 'agrees' : 'DOES NOT AGREE';
  console.log(
    `\n${scores.length} people scored, ${columns.length} ${columns.length === 1 ? 'label' : 'labels'}: ${path.relative(process.cwd(), file)}`,
  );
  console.log(
    `${expected.length} of them against the authors' code in double precision: largest difference ${worst.toExponential(1)}, ${verdict} (bound ${bound.toExponential(0)})\n`,
  );
  if (!(worst <= bound)) process.exitCode = 1;
  return { scores, expected, columns };
}

async function run() {
  ensure();
  const { formatTable } = require('../dist/cli/table.js');
  console.log('Death within 5 years, from irregular clinical histories (examples/nafld, examples/nafld-mortality)\n');
  await showArrays();
  const { scores, expected } = await showModel('nafld-mortality', 'scores.csv');
  const byPatient = new Map(scores.map((row) => [row.patient, Number(row.probability)]));
  const sorted = [...expected].sort((a, b) => b.probability - a.probability);
  const shown = [...sorted.slice(0, 5), ...sorted.slice(-3)];
  console.log(
    formatTable(
      ['patient', 'probability', 'expected', 'what happened'],
      shown.map(({ patient, probability, label }) => [
        patient,
        byPatient.get(patient).toFixed(6),
        Number(probability).toFixed(6),
        label === '1' ? 'died' : 'alive after 5 years',
      ]),
    ),
  );
  await hpformer('evaluate', path.join(__dirname, 'nafld-mortality'), data);
  console.log('\nEight outcomes within 5 years (examples/nafld-outcomes)\n');
  await showModel('nafld-outcomes', 'scores.outcomes.csv');
  await hpformer('evaluate', path.join(__dirname, 'nafld-outcomes'), data, '--bootstrap', '200');
  console.log('\nExamples and tests only: not for clinical use, not a medical device.');
}

run().catch((error) => {
  console.error(error);
  process.exit(1);
});
