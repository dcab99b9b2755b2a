// Brings a clone to the state in which its tests and its demo can run: dependencies, addon, TypeScript. Does only what is
// missing or stale, judged by the content of the sources. Node's built-in modules only: on a fresh clone nothing else is there.
'use strict';
const { spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const stamps = path.join(root, 'node_modules', '.cache', 'hpformer');

function run(command, args, env = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (result.error) {
    console.error(`hpformer: ${command} could not be started: ${result.error.message}`);
    process.exit(1);
  }
  if (result.status !== 0) {
    console.error(`hpformer: ${[path.basename(command), ...args].join(' ')} failed`);
    process.exit(result.status ?? 1);
  }
}

function npm(args) {
  // Started by npm, the same npm is used again; started by node alone, the one beside it.
  if (process.env.npm_execpath?.endsWith('.js')) return run(process.execPath, [process.env.npm_execpath, ...args]);
  return run(process.platform === 'win32' ? 'npm.cmd' : 'npm', args);
}

/** True when every package of the lockfile that this platform needs is installed in the locked version. */
function dependenciesCurrent() {
  const installed = path.join(root, 'node_modules', '.package-lock.json');
  if (!fs.existsSync(installed)) return false;
  const have = JSON.parse(fs.readFileSync(installed, 'utf8')).packages;
  const want = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(want).every(
    ([name, entry]) => name === '' || entry.optional || entry.peer || have[name]?.version === entry.version,
  );
}

function* files(entry, keep) {
  const stat = fs.statSync(entry, { throwIfNoEntry: false });
  if (stat?.isFile() && keep(entry)) yield entry;
  if (!stat?.isDirectory()) return;
  for (const name of fs.readdirSync(entry).sort()) yield* files(path.join(entry, name), keep);
}

function digest(entries, keep, extra) {
  const hash = crypto.createHash('sha256').update(JSON.stringify(extra));
  for (const entry of entries) {
    for (const file of files(path.join(root, entry), keep)) {
      hash.update(`\0${path.relative(root, file)}\0`).update(fs.readFileSync(file));
    }
  }
  return hash.digest('hex');
}

function stamp(name, fingerprint) {
  fs.mkdirSync(stamps, { recursive: true });
  // A new file each time: in node_modules that was copied as hard links, the other copy keeps what is true of it.
  fs.rmSync(path.join(stamps, name), { force: true });
  fs.writeFileSync(path.join(stamps, name), `${fingerprint}\n`);
}

/** Runs `build` unless `product` is there and was made from the same sources. */
function step(name, product, fingerprint, build) {
  const made = path.join(stamps, name);
  const current =
    fs.existsSync(path.join(root, product)) &&
    fs.existsSync(made) &&
    fs.readFileSync(made, 'utf8').trim() === fingerprint;
  if (current) return;
  console.error(`hpformer: ${name} ...`);
  build();
  stamp(name, fingerprint);
}

const isNative = (file) => /\.(cc|h|inl|cu|cuh|cmake|txt|in|py)$/.test(file);

/** Installs what the lockfile names, never running another package's scripts. */
function dependencies() {
  if (dependenciesCurrent()) return;
  console.error('hpformer: dependencies ...');
  npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
}

/** The addon, and with `tests` the native test programs beside it. */
function native({ tests = false } = {}) {
  const names = ['HPFORMER_CUDA', 'HPFORMER_CUDA_ARCHITECTURES', 'CMAKE_TOOLCHAIN_FILE'];
  const settings = [process.platform, process.arch, ...names.map((name) => process.env[name])];
  const sources = ['CMakeLists.txt', 'binding', 'cuda'];
  const addon = 'build/Release/hpformer.node';
  const build = (withTests) => () =>
    run(process.execPath, [path.join(__dirname, 'build.cjs')], { HPFORMER_TESTS: withTests ? 'ON' : 'OFF' });
  const alone = digest(sources, isNative, settings);
  if (!tests || !fs.existsSync(path.join(root, 'test', 'native', 'CMakeLists.txt'))) {
    step('native', addon, alone, build(false));
    return;
  }
  // The addon beside the tests is the addon alone: one build makes both.
  step(
    'native-tests',
    addon,
    digest([...sources, 'test/native', 'bench/native', 'bench/peers'], isNative, settings),
    build(true),
  );
  stamp('native', alone);
}

/** dist/: the compiled TypeScript and its ESM face. */
function typescript() {
  const sources = ['src', 'tsconfig.json', 'tsconfig.build.json', 'binding/esm.cjs', 'package-lock.json'];
  step(
    'typescript',
    'dist/index.js',
    digest(sources, () => true, []),
    () => {
      run(process.execPath, [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);
      run(process.execPath, [path.join(__dirname, 'esm.cjs')]);
    },
  );
}

/** Everything, in order. */
function ensure(options = {}) {
  dependencies();
  native(options);
  typescript();
}

module.exports = { ensure, dependencies, native, typescript, root };
if (require.main === module) ensure({ tests: process.argv.includes('--tests') });
