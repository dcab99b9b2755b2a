// Line coverage of the TypeScript sources: what jest's processes counted, and what child processes and worker threads (command line,
// workers, examples) ran of dist, by V8's own counts and dist's source maps. A line counts when any of them ran it.
// node test/tools/coverage.cjs <folder with NODE_V8_COVERAGE files> <coverage-final.json> ...
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { fileURLToPath } = require('node:url');
const v8ToIstanbul = require('v8-to-istanbul');

const root = path.join(__dirname, '..', '..');
const [folder, ...reports] = process.argv.slice(2);

/** Source file → lines that some child process ran. */
async function linesOfChildren() {
  const ran = new Map();
  for (const name of fs.existsSync(folder) ? fs.readdirSync(folder) : []) {
    let result;
    try {
      ({ result } = JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8')));
    } catch {
      continue; // a process that was killed while it wrote
    }
    for (const { url, functions } of result) {
      if (!url.startsWith('file://')) continue;
      const script = fileURLToPath(url);
      if (!script.startsWith(path.join(root, 'dist') + path.sep) || !fs.existsSync(script)) continue;
      const converter = v8ToIstanbul(script);
      await converter.load();
      converter.applyCoverage(functions);
      for (const [source, { statementMap, s }] of Object.entries(converter.toIstanbul())) {
        const lines = ran.get(source) ?? new Set();
        for (const [id, { start }] of Object.entries(statementMap)) if (s[id] > 0) lines.add(start.line);
        ran.set(source, lines);
      }
      converter.destroy();
    }
  }
  return ran;
}

async function main() {
  const children = await linesOfChildren();
  /** Source file → line → times run, over all reports. */
  const counted = new Map();
  for (const report of reports)
    for (const [file, { statementMap, s }] of Object.entries(JSON.parse(fs.readFileSync(report, 'utf8')))) {
      // What was compiled before and is no more, or is no source of ours.
      if (!file.startsWith(path.join(root, 'src') + path.sep)) continue;
      const lines = counted.get(file) ?? new Map();
      for (const [id, { start }] of Object.entries(statementMap))
        lines.set(start.line, Math.max(lines.get(start.line) ?? 0, s[id]));
      counted.set(file, lines);
    }
  let all = 0;
  let reached = 0;
  let alone = 0;
  const rows = [];
  for (const [file, lines] of counted) {
    const ofChildren = children.get(file) ?? new Set();
    const missed = [...lines].filter(([line, count]) => count === 0 && !ofChildren.has(line)).map(([line]) => line);
    alone += [...lines.values()].filter((count) => count > 0).length;
    all += lines.size;
    reached += lines.size - missed.length;
    if (missed.length > 0) rows.push([path.relative(root, file), missed, lines.size]);
  }
  for (const [file, missed, total] of rows.sort((a, b) => b[1].length - a[1].length))
    console.log(
      `${((100 * (total - missed.length)) / total).toFixed(1).padStart(6)} %  ${file.padEnd(40)} ${missed.slice(0, 16).join(' ')}`,
    );
  const share = (100 * reached) / all;
  console.log(
    `${share.toFixed(1).padStart(6)} %  TypeScript lines (${reached} of ${all}; ${alone} in jest's own processes)`,
  );
  if (share < 98) process.exitCode = 1;
}

void main();
