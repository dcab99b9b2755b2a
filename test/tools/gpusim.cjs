// The stand-in CUDA driver, when its source is at hand: HPFORMER_GPUSIM names the folder. Built once into build-gpusim/.
// test/skips.ts gives the CUDA tests its path; without it they are counted as skipped.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..', '..');
const library = path.join(root, 'build-gpusim', 'libcuda.so.1');

function source() {
  const candidates = [process.env.HPFORMER_GPUSIM, path.join(root, '..', 'shared', 'tools', 'gpusim')];
  return candidates.find((folder) => folder && fs.existsSync(path.join(folder, 'CMakeLists.txt')));
}

/** Builds the library if its source is there and answers its path, or undefined. */
function gpusim() {
  if (fs.existsSync(library)) return library;
  const from = source();
  if (from === undefined || process.platform !== 'linux') return undefined;
  console.error('hpformer: stand-in CUDA driver ...');
  const build = path.dirname(library);
  for (const args of [
    ['-S', from, '-B', build, '-DGPUSIM_TESTS=OFF', '-DCMAKE_BUILD_TYPE=Release'],
    ['--build', build, '--parallel', '2'],
  ]) {
    const result = spawnSync('cmake', args, { cwd: root, encoding: 'utf8' });
    if (result.status !== 0) {
      console.error(`hpformer: the stand-in CUDA driver did not build, its tests are skipped:\n${result.stderr}`);
      return undefined;
    }
  }
  return fs.existsSync(library) ? library : undefined;
}

module.exports = { gpusim, library };
if (require.main === module) console.log(gpusim() ?? 'no source of the stand-in CUDA driver');
