// Line coverage of the C++ sources from gcov's JSON, one row per file: node test/tools/gcov.cjs <build folder>
'use strict';
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const zlib = require('node:zlib');

const root = path.join(__dirname, '..', '..');
const build = path.resolve(process.argv[2] ?? 'build-coverage');
const out = path.join(build, 'gcov');
fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(out);

const data = fs
  .readdirSync(build, { recursive: true })
  .map(String)
  .filter((file) => file.endsWith('.gcda'))
  .map((file) => path.join(build, file));
/** file → line → times executed, over all objects that contain it. */
const lines = new Map();
for (const [index, file] of data.entries()) {
  const folder = path.join(out, String(index));
  fs.mkdirSync(folder);
  execFileSync('gcov', ['--json-format', file], { cwd: folder, stdio: 'ignore' });
  for (const name of fs.readdirSync(folder)) {
    const report = JSON.parse(zlib.gunzipSync(fs.readFileSync(path.join(folder, name))).toString());
    for (const { file: source, lines: counted } of report.files) {
      const relative = path.relative(root, path.resolve(report.current_working_directory, source));
      if (!/^(binding|cuda)\//.test(relative)) continue;
      const known = lines.get(relative) ?? new Map();
      for (const { line_number: line, count } of counted) known.set(line, (known.get(line) ?? 0) + count);
      lines.set(relative, known);
    }
  }
}
let all = 0;
let reached = 0;
for (const [file, counts] of [...lines].sort()) {
  const hit = [...counts.values()].filter((count) => count > 0).length;
  all += counts.size;
  reached += hit;
  const missed = [...counts].filter(([, count]) => count === 0).map(([line]) => line);
  const which = missed
    .sort((a, b) => a - b)
    .slice(0, 12)
    .join(' ');
  console.log(`${((100 * hit) / counts.size).toFixed(1).padStart(6)} %  ${file.padEnd(44)} ${which}`);
}
console.log(`${((100 * reached) / Math.max(1, all)).toFixed(1).padStart(6)} %  C++ lines (${reached} of ${all})`);
if (all === 0 || reached < 0.95 * all) process.exitCode = 1;

// Every status that the native sources can answer with is answered with in some test.
const statuses = new Map();
for (const [file, counts] of lines) {
  for (const [at, text] of fs.readFileSync(path.join(root, file), 'utf8').split('\n').entries()) {
    for (const [, status] of text.matchAll(/StatusCode::(\w+)/g)) {
      if (status === 'ok') continue;
      const hit = (counts.get(at + 1) ?? 0) > 0 && !/[!=]=\s*StatusCode/.test(text);
      statuses.set(status, (statuses.get(status) ?? false) || hit);
    }
  }
}
const unreached = [...statuses].filter(([, hit]) => !hit).map(([status]) => status);
console.log(
  `statuses reached: ${statuses.size - unreached.length} of ${statuses.size}${unreached.length ? `, not ${unreached.join(', ')}` : ''}`,
);
if (statuses.size === 0 || unreached.length > 0) process.exitCode = 1;
