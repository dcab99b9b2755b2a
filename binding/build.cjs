#!/usr/bin/env node
// The one native build. Callers: the install fallback, prebuildify (as its "node-gyp"), node-gyp's thin gyp file,
// binding/ensure.cjs, a developer.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const folder = path.join(root, 'build');
const advice =
  'install CMake 3.20 or newer and a C++20 compiler (Debian: apt install cmake g++), then run: npm rebuild hpformer --foreground-scripts';

/** True when a program of this name is on the PATH. */
function found(program) {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd', ''] : [''];
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  return folders.some((entry) => endings.some((ending) => fs.existsSync(path.join(entry, program + ending))));
}

/** What a build lacks on this machine, or undefined. */
function missing() {
  if (!found('cmake')) return 'cmake, which was not found';
  // Elsewhere CMake finds compilers that are not on the PATH.
  const named = process.env.CXX ?? process.env.CMAKE_TOOLCHAIN_FILE;
  if (process.platform !== 'linux' || named || ['c++', 'g++', 'clang++'].some(found)) return undefined;
  return 'a C++ compiler, and none was found';
}

/** Builds the addon into build/<configuration>; ends the process with one sentence when it cannot. `because` begins it. */
function build({ debug = false, because = '' } = {}) {
  const fail = (reason) => {
    console.error(`hpformer: ${because}${reason}; ${advice}`);
    process.exit(1);
  };
  const run = (args) => {
    const result = spawnSync('cmake', args, { stdio: 'inherit', cwd: root });
    if (result.error) fail(`cmake could not be started (${result.error.message})`);
    return result.status === 0;
  };
  const lack = missing();
  if (lack) fail(`building from source needs ${lack}`);

  // A build folder configured elsewhere (a moved or copied clone) cannot be used again.
  const cache = path.join(folder, 'CMakeCache.txt');
  if (fs.existsSync(cache)) {
    const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1];
    if (home !== undefined && path.resolve(home) !== path.resolve(root)) fs.rmSync(folder, { recursive: true });
  }

  // The kernels are written in vector types that Microsoft's own compiler does not have.
  const toolset = process.platform === 'win32' ? ['-T', 'ClangCL'] : [];
  const config = debug ? 'Debug' : 'Release';
  const tests = process.env.HPFORMER_TESTS === 'ON';
  const definitions = [
    `-DCMAKE_BUILD_TYPE=${config}`,
    `-DHPFORMER_OUTPUT_DIRECTORY=${path.join(folder, config)}`,
    `-DHPFORMER_TESTS=${tests ? 'ON' : 'OFF'}`,
    `-DHPFORMER_CUDA_ARCHITECTURES=${process.env.HPFORMER_CUDA_ARCHITECTURES ?? 'developer'}`,
  ];
  // Said every time, or a folder configured without CUDA once would go on making binaries without.
  definitions.push(`-DHPFORMER_CUDA=${process.env.HPFORMER_CUDA || 'AUTO'}`);
  if (process.env.CMAKE_TOOLCHAIN_FILE) definitions.push(`-DCMAKE_TOOLCHAIN_FILE=${process.env.CMAKE_TOOLCHAIN_FILE}`);
  if (!run(['-S', root, '-B', folder, ...toolset, ...definitions])) fail('CMake could not configure the build');
  const jobs = String(os.availableParallelism?.() ?? os.cpus().length);
  const target = tests ? [] : ['--target', 'hpformer'];
  if (!run(['--build', folder, '--config', config, '--parallel', jobs, ...target])) fail('the source did not compile');
}

module.exports = { build };
if (require.main === module) build({ debug: process.argv.includes('--debug') });
