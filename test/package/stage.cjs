// The package as a user gets it: `npm pack`, with the addon of build/Release put in by prebuildify, without a second compile.
// Shared by package.test.ts and test/tools/matrix.cjs.
'use strict';
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { prebuilds } = require('../../binding/prebuilds.cjs');

const root = path.join(__dirname, '..', '..');
const dependencies = Object.keys(JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')).dependencies);

/** The environment of a user's shell: nothing of the npm that runs the tests. */
function cleanEnvironment(extra = {}) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|INIT_CWD|NODE_|JEST_|HPFORMER_)/i.test(name));
  return { ...Object.fromEntries(kept), ...extra };
}

function npm(args, options = {}) {
  const program = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  return spawnSync(program, [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    encoding: 'utf8',
    env: cleanEnvironment(options.env),
    cwd: options.cwd,
  });
}

/** `npm pack` of a folder into `into`; answers the file and its list of contents. */
function pack(folder, into) {
  const result = npm(['pack', '--ignore-scripts', '--json', '--pack-destination', into], { cwd: folder });
  if (result.status !== 0) throw new Error(`npm pack failed: ${result.stderr}`);
  const parsed = JSON.parse(result.stdout);
  // A list up to npm 11, an object by name from npm 12 on.
  const [{ filename, files, size, unpackedSize }] = Array.isArray(parsed) ? parsed : Object.values(parsed);
  return { tarball: path.join(into, filename), files: files.map((file) => file.path), size, unpackedSize };
}

/** Packs the project without any binary, unpacks it to `<work>/package`, and answers that folder. */
function unpack(work) {
  fs.mkdirSync(work, { recursive: true });
  const { tarball } = pack(root, work);
  execFileSync('tar', ['-xzf', tarball, '-C', work]);
  fs.rmSync(tarball);
  const folder = path.join(work, 'package');
  fs.rmSync(path.join(folder, 'prebuilds'), { recursive: true, force: true });
  return folder;
}

/** Lets prebuildify make prebuilds/ in an unpacked folder; its builder only copies the addon that is already compiled. */
async function addPrebuild(folder) {
  const script = path.join(folder, '..', 'copy-addon.cjs');
  fs.writeFileSync(
    script,
    `const fs = require('node:fs');
fs.mkdirSync('build/Release', { recursive: true });
fs.copyFileSync(${JSON.stringify(path.join(root, 'build', 'Release', 'hpformer.node'))}, 'build/Release/hpformer.node');
`,
  );
  await new Promise((resolve, reject) => {
    prebuilds(folder, `"${process.execPath}" "${script}"`, (error) => (error ? reject(error) : resolve()));
  });
  fs.rmSync(path.join(folder, 'build'), { recursive: true });
}

/** Tarballs of the three dependencies from node_modules, so that installing needs no network. */
function packDependencies(into) {
  return dependencies.map((name) => pack(path.join(root, 'node_modules', name), into).tarball);
}

/** An empty project in `folder` with the tarballs installed, scripts blocked; answers npm's result. */
function install(folder, tarballs) {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "name": "consumer", "version": "1.0.0", "private": true }\n');
  return npm(['install', '--offline', '--ignore-scripts', ...tarballs], { cwd: folder });
}

/** Runs the install script of the installed package as npm would when scripts are allowed. */
function runInstallScript(folder, env = {}) {
  return spawnSync(process.execPath, [path.join('binding', 'install.cjs')], {
    cwd: path.join(folder, 'node_modules', 'hpformer'),
    encoding: 'utf8',
    env: cleanEnvironment(env),
  });
}

/** A program that predicts, for either module system; prints one JSON line. */
const program = {
  cjs: `const { HPformer, Tensor, presets, HPformerError } = require('hpformer');
const esm = import('hpformer');
(async () => {
  const same = (await esm).Tensor === Tensor && (await esm).HPformerError === HPformerError;
  const model = await HPformer.create(presets.mortality({ layers: 2, hidden: 32 }), { seed: 7, device: 'cpu' });
  const features = new Tensor('float32', Float32Array.from({ length: 48 * 76 }, (_, i) => Math.sin(i)), [1, 48, 76]);
  const { probabilities } = await model.run({ features });
  console.log(JSON.stringify({ same, dims: probabilities.dims, value: probabilities.data[0] }));
  await model[Symbol.asyncDispose ?? 'dispose']();
})();
`,
  mjs: `import { HPformer, Tensor, presets, errorCodes } from 'hpformer';
const model = await HPformer.create(presets.mortality({ layers: 2, hidden: 32 }), { seed: 7, device: 'cpu' });
const features = new Tensor('float32', Float32Array.from({ length: 48 * 76 }, (_, i) => Math.sin(i)), [1, 48, 76]);
const { probabilities } = await model.run({ features });
console.log(JSON.stringify({ same: 'ERR_HPFORMER_SHAPE' in errorCodes, dims: probabilities.dims, value: probabilities.data[0] }));
model.dispose();
`,
};

/** Writes the programs into a consumer's folder and answers their paths. */
function writePrograms(folder) {
  return Object.entries(program).map(([ending, text]) => {
    const file = path.join(folder, `predict.${ending}`);
    fs.writeFileSync(file, text);
    return file;
  });
}

module.exports = {
  root,
  cleanEnvironment,
  npm,
  pack,
  unpack,
  addPrebuild,
  packDependencies,
  install,
  runInstallScript,
  writePrograms,
};
