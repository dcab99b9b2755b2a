#!/usr/bin/env node
// The one native build. Callers: the install fallback, prebuildify (as its "node-gyp"), node-gyp's thin gyp file,
// binding/ensure.cjs, a developer.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const config = process.argv.includes('--debug') ? 'Debug' : 'Release';
const build = path.join(root, 'build');
const advice =
  'install CMake 3.20 or newer and a C++20 compiler (Debian: apt install cmake g++), then run: npm rebuild hpformer --foreground-scripts';

function fail(reason) {
  console.error(`hpformer: ${reason}; ${advice}`);
  process.exit(1);
}

function run(command, args) {
  const result = spawnSync(command, args, { stdio: 'inherit', cwd: root });
  if (result.error?.code === 'ENOENT') fail(`building from source needs ${command}, which was not found`);
  if (result.error) fail(`${command} could not be started (${result.error.message})`);
  return result.status ?? 1;
}

// A build folder configured elsewhere (a moved or copied clone) cannot be used again.
const cache = path.join(build, 'CMakeCache.txt');
if (fs.existsSync(cache)) {
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1];
  if (home !== undefined && path.resolve(home) !== path.resolve(root)) fs.rmSync(build, { recursive: true });
}

const tests = process.env.HPFORMER_TESTS === 'ON';
const definitions = [
  `-DCMAKE_BUILD_TYPE=${config}`,
  `-DHPFORMER_OUTPUT_DIRECTORY=${path.join(build, config)}`,
  `-DHPFORMER_TESTS=${tests ? 'ON' : 'OFF'}`,
];
if (process.env.CMAKE_TOOLCHAIN_FILE) {
  definitions.push(`-DCMAKE_TOOLCHAIN_FILE=${process.env.CMAKE_TOOLCHAIN_FILE}`);
}
if (process.env.HPFORMER_CUDA) definitions.push(`-DHPFORMER_CUDA=${process.env.HPFORMER_CUDA}`);

if (run('cmake', ['-S', root, '-B', build, ...definitions]) !== 0) fail('CMake could not configure the build');
const jobs = String(os.availableParallelism?.() ?? os.cpus().length);
const target = tests ? [] : ['--target', 'hpformer'];
if (run('cmake', ['--build', build, '--config', config, '--parallel', jobs, ...target]) !== 0) {
  fail('the source did not compile');
}
