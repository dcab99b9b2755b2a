// Runs the longer commands of docs/reliability.md and writes the figures that they print into its second table:
// node test/tools/reliability.cjs [text of the commands to run; all of them without]. Hours on a small machine.
// What each command printed is kept in build-reliability/. With --log=<file> the figure comes from what an earlier run printed
// (its last line `rc <exit code> ...`).
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { library } = require('./gpusim.cjs');

const root = path.join(__dirname, '..', '..');
const file = path.join(root, 'docs', 'reliability.md');
const logs = path.join(root, 'build-reliability');
const only = process.argv.slice(2).find((argument) => !argument.startsWith('--')) ?? '';
const given = process.argv.find((argument) => argument.startsWith('--log='))?.slice('--log='.length);

const driver = process.env.HPFORMER_CUDA_LIBRARY ?? (fs.existsSync(library) ? library : undefined);
const env = { ...process.env, ...(driver === undefined ? {} : { HPFORMER_CUDA_LIBRARY: driver }) };

const tests = /^Tests: .*$/gm;
/** All passes of the allocation tests as one line. */
const allocations = (lines) => {
  const counts = lines.flatMap((line) => /(\d+) allocations/.exec(line)?.[1] ?? []).map(Number);
  return [`${counts.reduce((a, b) => a + b, 0)} failed allocations in ${counts.length} passes`, lines.at(-1)];
};
/** Command as the table shows it, the figures in what it prints, how many of them count (the last ones), what they are as text. */
const figures = [
  ['npm run test:package:matrix', /^\d+ passed, .*$/gm, 1],
  ['npx jest test/package test/house/binary test/house/workflows', tests, 1],
  ['npm run prebuilds && node test/tools/release.cjs --partial', /^(?:prebuilds|tarball).*$/gm, 3],
  ['node test/trust/figures.cjs require', /^require: .*$/gm, 1],
  ['npx jest test/trust/malformed --verbose', /^ *\d+ files, .*$|^Tests: .*$/gm, 2],
  ['npx jest test/fuzz', /^(?:fuzz|Tests): .*$/gm, 7],
  ['npm run test:fuzz -- 240', /^fuzz: .*$/gm, 3],
  ['bash test/tools/fuzz-native.sh 600', /^fuzz: .*$/gm, 2],
  ['ctest --test-dir build -V -R allocation', / \d+ allocations.*$|^\d+% tests passed.*$/gm, 40, allocations],
  ['npx jest test/trust/memory test/trust/loading', tests, 1],
  ['node --expose-gc test/trust/figures.cjs large', /^large: .*$/gm, 1],
  ['node --expose-gc test/tools/soak.cjs', /^\d+ runs: .*$/gm, 1],
  ['node --expose-gc test/trust/figures.cjs workers', /^workers: .*$/gm, 1],
  ['node test/tools/workers.cjs', /^\d+ workers .*$/gm, 1],
  ['CHILDREN=100 npx jest test/session/process', tests, 1],
  ['node test/trust/figures.cjs exit', /^exit: .*$/gm, 1],
  ['ABORTS=10000 npx jest test/session/abort', tests, 1],
  ['node test/trust/figures.cjs stop', /^stop: .*$/gm, 1],
  ['TIMES=10000 npx jest test/trust/threads', tests, 1],
  ['npm run test:sanitize -- thread', /^(?:\d+% tests passed.*|Tests: .*)$/gm, 2],
  ['npm run test:sanitize -- address', /^(?:\d+% tests passed.*|Tests: .*)$/gm, 2],
  ['npm run test:sanitize -- valgrind', /^valgrind: .*$/gm, 5],
  ['REPEATS=1000 npx jest test/trust/determinism test/golden/valid', tests, 1],
  ['node test/tools/seeds.cjs 40', /^seeds: .*$/gm, 1],
  ['npm run test:coverage', /^ *[\d.]+ % {2}(?:TypeScript|C\+\+) lines.*$|^statuses reached: .*$/gm, 3],
  ['node test/tools/mutation.cjs 400', /^\d+ of \d+ mutants .*$/gm, 1],
  ['npx jest test/session/examples test/house/readme', tests, 1],
  ['npm run docs && npx jest test/house/docs', /^Tests: .*$|Found \d+ errors.*$|html generated.*$/gm, 3],
];

module.exports = { figures };
const chosen = require.main === module ? figures.filter(([text]) => text.includes(only)) : [];
for (const [command, figure, count, shorten = (lines) => lines] of chosen) {
  const log = given ?? path.join(logs, `${command.replace(/[^\w]+/g, '-')}.log`);
  if (!given) {
    fs.mkdirSync(logs, { recursive: true });
    const out = fs.openSync(log, 'w');
    const started = Date.now();
    const { status } = spawnSync('bash', ['-c', command], { cwd: root, stdio: ['ignore', out, out], env });
    fs.writeSync(out, `\nrc ${status} ${((Date.now() - started) / 1000).toFixed(0)} s\n`);
    fs.closeSync(out);
  }
  const printed = fs.readFileSync(log, 'utf8');
  const [, status, took] = /^rc (\d+|null) ?(.*)\n*$/m.exec(printed.trim().split('\n').at(-1)) ?? [];
  if (status === undefined) throw new Error(`${log}: expected a last line "rc <exit code>"`);
  const found = [...printed.matchAll(figure)].map(([text]) => text.trim().replace(/\s+/g, ' ').replaceAll('|', '/'));
  const said =
    [...shorten(found.slice(-count)), /^\d+ s$/.test(took) ? took : ''].filter(Boolean).join('; ') || 'passed';
  const cell = status === '0' ? said : `FAILED: ${said}`;
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  const row = lines.findIndex((line) => line.startsWith('|') && line.includes(`\`${command}\``));
  if (row < 0) throw new Error(`docs/reliability.md has no row for ${command}`);
  lines[row] = `${lines[row].slice(0, lines[row].indexOf(`\`${command}\``) + command.length + 2)} | ${cell} |`;
  fs.writeFileSync(file, lines.join('\n'));
  console.log(`${command}: ${cell}`);
  if (status !== '0') process.exitCode = 1;
}
