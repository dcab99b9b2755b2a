#!/usr/bin/env node
// `node bench/run.cjs peers|wasm|attention|efficiency|engine|native|callgrind … [options]`: installs bench's own packages on first use, compiles what is
// stale, runs.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const bench = __dirname;
const root = path.join(bench, '..');
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

function run(command, args, cwd) {
  // Everything that is not the result goes to stderr, so that `--json` output stays clean.
  const result = spawnSync(command, args, { cwd, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' });
  if (result.error || result.status !== 0) {
    console.error(`bench: ${command} ${args.join(' ')} failed in ${path.relative(root, cwd) || '.'}`);
    process.exit(1);
  }
}

/** The newest change below a folder, in ms. */
function newest(folder, pattern) {
  return fs.readdirSync(folder, { withFileTypes: true }).reduce((latest, entry) => {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? latest : Math.max(latest, newest(full, pattern));
    return pattern.test(entry.name) ? Math.max(latest, fs.statSync(full).mtimeMs) : latest;
  }, 0);
}

const time = (file) => (fs.existsSync(file) ? fs.statSync(file).mtimeMs : 0);

const task = process.argv[2] ?? '';
const tasks = ['peers', 'wasm', 'attention', 'efficiency', 'engine', 'native', 'callgrind'];
if (!tasks.includes(task)) {
  console.error(`usage: node bench/run.cjs ${tasks.join('|')} [options]`);
  process.exit(2);
}
// Only these load the package itself or its peers; the others are native programs of their own.
if (['peers', 'wasm'].includes(task)) {
  const installed = path.join(bench, 'node_modules', '.package-lock.json');
  if (time(installed) < time(path.join(bench, 'package-lock.json'))) {
    // Their install scripts would only fetch GPU binaries.
    run(npm, ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], bench);
    fs.utimesSync(installed, new Date(), new Date());
  }
}
if (['peers', 'wasm', 'engine', 'efficiency'].includes(task)) {
  run(process.execPath, [path.join(root, 'binding', 'ensure.cjs')], root);
}
const built = path.join(bench, 'dist', `${task}.js`);
if (time(built) < newest(path.join(bench, 'src'), /\.ts$/)) {
  // Types are checked by `tsc -p bench`; here they are only stripped.
  run(process.execPath, [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', bench, '--noCheck'], root);
}
const child = spawnSync(process.execPath, [built, ...process.argv.slice(3)], { stdio: 'inherit' });
process.exit(child.status ?? 1);
