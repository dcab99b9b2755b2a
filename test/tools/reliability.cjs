// Runs the longer commands of docs/reliability.md and writes the figures that they print into its second table:
// node test/tools/reliability.cjs [text of the commands to run; all of them without]. Hours on a small machine.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..', '..');
const file = path.join(root, 'docs', 'reliability.md');
const only = process.argv[2] ?? '';

/** Command as the table shows it → the figure in what it prints. */
const figures = [
  ['npm run test:fuzz -- 60', /.*(?:mutated|executions|files).*/gi],
  ['node --expose-gc test/tools/soak.cjs', /^\d+ runs: .*$/gm],
  ['node test/tools/workers.cjs', /^\d+ workers .*$/gm],
  ['CHILDREN=100 npx jest test/session/process', /^Tests: .*$/gm],
  ['ABORTS=10000 npx jest test/session/abort', /^Tests: .*$/gm],
  ['REPEATS=1000 npx jest test/trust/determinism', /^Tests: .*$/gm],
  ['TIMES=10000 npx jest test/trust/threads', /^Tests: .*$/gm],
  ['node test/tools/mutation.cjs', /^\d+ of \d+ mutants .*$/gm],
  ['npm run test:coverage', /^(?:Lines|Branches) .*$|^.*% {2}C\+\+ lines.*$/gm],
];

for (const [command, figure] of figures.filter(([text]) => text.includes(only))) {
  const { stdout, stderr, status } = spawnSync('bash', ['-c', command], { cwd: root, encoding: 'utf8' });
  const printed = `${stdout}\n${stderr}`;
  const found = [...printed.matchAll(figure)].map(([text]) => text.trim().replaceAll('|', '/'));
  const said = status === 0 ? found.slice(-2).join('; ') || 'passed' : `failed (${status}): ${found.join('; ')}`;
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  const row = lines.findIndex((line) => line.startsWith('|') && line.includes(`\`${command}\``));
  if (row < 0) throw new Error(`docs/reliability.md has no row for ${command}`);
  const cells = lines[row].split(' | ');
  lines[row] = `${cells.slice(0, 2).join(' | ')} | ${said} |`;
  fs.writeFileSync(file, lines.join('\n'));
  console.log(`${command}: ${said}`);
  if (status !== 0) process.exitCode = 1;
}
