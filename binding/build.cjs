#!/usr/bin/env node
// The one native build. Callers: the install fallback, prebuildify (as its "node-gyp"), node-gyp's thin gyp file, a developer.
'use strict';
const { spawnSync } = require('node:child_process');
const path = require('node:path');

const root = path.join(__dirname, '..');
const config = process.argv.includes('--debug') ? 'Debug' : 'Release';
const build = path.join(root, 'build');

function run(command, args) {
  const result = spawnSync(command, args, { stdio: 'inherit', cwd: root });
  if (result.error?.code === 'ENOENT') {
    console.error(
      `hpformer: building from source needs ${command}; install CMake >= 3.20 and a C++20 compiler, then run: npm rebuild hpformer --foreground-scripts`,
    );
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.status ?? 1);
}

const definitions = [
  `-DCMAKE_BUILD_TYPE=${config}`,
  `-DHPFORMER_OUTPUT_DIRECTORY=${path.join(build, config)}`,
];
if (process.env.CMAKE_TOOLCHAIN_FILE) {
  definitions.push(`-DCMAKE_TOOLCHAIN_FILE=${process.env.CMAKE_TOOLCHAIN_FILE}`);
}
if (process.env.HPFORMER_CUDA) definitions.push(`-DHPFORMER_CUDA=${process.env.HPFORMER_CUDA}`);

run('cmake', ['-S', root, '-B', build, ...definitions]);
run('cmake', ['--build', build, '--config', config, '--parallel', '--target', 'hpformer']);
