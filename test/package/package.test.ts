/**
 * The package from the outside: packed, installed in empty folders without network and with scripts blocked, used from both
 * module systems. `npm run test:package:matrix` adds other run times and package managers and a real source build.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { describeUnless, notOn, root, withoutProgram } from '../skips';

interface Packed {
  tarball: string;
  files: string[];
  size: number;
  unpackedSize: number;
}
const stage = require('./stage.cjs') as {
  cleanEnvironment(extra?: object): NodeJS.ProcessEnv;
  pack(folder: string, into: string): Packed;
  unpack(work: string): string;
  addPrebuild(folder: string): Promise<void>;
  packDependencies(into: string): string[];
  install(folder: string, tarballs: string[]): SpawnSyncReturns<string>;
  runInstallScript(folder: string, env?: object): SpawnSyncReturns<string>;
  writePrograms(folder: string): string[];
};

const prebuildFolder = `${process.platform}-${process.arch}`;
const node = (cwd: string, ...args: string[]) =>
  spawnSync(process.execPath, args, { cwd, encoding: 'utf8', env: stage.cleanEnvironment() });

/** Every file below a folder with size and time of change. */
function snapshot(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => `${file} ${statSync(file).size} ${statSync(file).mtimeMs}`)
    .sort();
}

describeUnless(notOn('linux') ?? withoutProgram('tar'), 'the package', () => {
  let work: string;
  let dependencies: string[];
  let packed: Packed;
  let bare: Packed;
  let home: string;
  let prebuild: string;

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'hpformer-package-'));
    dependencies = stage.packDependencies(work);
    const folder = stage.unpack(work);
    mkdirSync(join(work, 'bare'));
    bare = stage.pack(folder, join(work, 'bare'));
    await stage.addPrebuild(folder);
    packed = stage.pack(folder, work);
    // Spaces and letters outside ASCII: what users' folders are called.
    home = join(work, 'with späces and ünïcode ☂');
    const installed = stage.install(home, [packed.tarball, ...dependencies]);
    if (installed.status !== 0) throw new Error(installed.stderr);
    prebuild = join('prebuilds', prebuildFolder, 'hpformer.glibc.node');
  }, 300000);

  afterAll(() => rmSync(work, { recursive: true, force: true }));

  test('holds what is needed and nothing else', () => {
    const allowed =
      /^(dist\/.+\.(js|mjs|d\.ts|d\.mts)|prebuilds\/[\w-]+\/[\w.]+\.node|binding\/.+\.(h|cc|inl|cmake|gyp|map)|binding\/(build|install)\.cjs|cuda\/.+\.(h|cc|cu|cuh|inl|cmake|in|py|S)|CMakeLists\.txt|package\.json|README\.md|LICENSE|SECURITY\.md|CHANGELOG\.md)$/;
    expect(packed.files.filter((file) => !allowed.test(file))).toEqual([]);
    const needed = [
      'dist/index.js',
      'dist/index.mjs',
      'dist/index.d.ts',
      'dist/index.d.mts',
      'dist/cli/main.js',
      'LICENSE',
    ];
    expect(needed.filter((file) => !packed.files.includes(file))).toEqual([]);
    expect(packed.files).toContain(prebuild.replaceAll('\\', '/'));
  });

  test('stays within its size: 8 MB packed with CUDA kernels, 1.5 MB without', () => {
    const addon = require('node-gyp-build')(root) as { info(): { cudaCompiled: boolean } };
    expect(packed.size).toBeLessThanOrEqual(addon.info().cudaCompiled ? 8_000_000 : 1_500_000);
    expect(bare.size).toBeLessThanOrEqual(1_000_000);
  });

  test('publint has nothing to say', () => {
    const run = node(root, join(root, 'node_modules', 'publint', 'src', 'cli.js'), 'run', '--strict', packed.tarball);
    expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
  });

  test('its types resolve in every mode (attw)', () => {
    const attw = join(root, 'node_modules', '@arethetypeswrong', 'cli', 'dist', 'index.js');
    const run = node(root, attw, '--profile', 'node16', '--format', 'ascii', '--no-emoji', packed.tarball);
    expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
  }, 120000);

  test('predicts from CommonJS and ESM with scripts blocked, one class identity, and ends by itself', () => {
    const answers = stage.writePrograms(home).map((file) => {
      const run = node(home, file);
      expect(run.stderr).toBe('');
      expect(run.status).toBe(0);
      return JSON.parse(run.stdout) as { same: boolean; dims: number[]; value: number };
    });
    expect(answers).toHaveLength(2);
    for (const { same, dims, value } of answers) {
      expect(same).toBe(true);
      expect(dims).toEqual([1, 1]);
      expect(value).toBeGreaterThan(0);
      expect(value).toBe(answers[0]!.value);
    }
  });

  test('writes nothing into its own folder when it is used', () => {
    const installed = join(home, 'node_modules');
    const before = snapshot(installed);
    for (const file of stage.writePrograms(home)) expect(node(home, file).status).toBe(0);
    expect(snapshot(installed)).toEqual(before);
  });

  test('the command runs', () => {
    const run = spawnSync(join(home, 'node_modules', '.bin', 'hpformer'), ['doctor', '--json'], {
      encoding: 'utf8',
      env: stage.cleanEnvironment(),
    });
    expect(run.stderr).toBe('');
    expect(run.status).toBe(0);
    expect(Object.keys(JSON.parse(run.stdout) as object).length).toBeGreaterThan(0);
  });

  test('a typed consumer compiles, as ESM and as CommonJS', () => {
    const source = `import { HPformer, Tensor, presets, type HPformerConfig } from 'hpformer';
const config: HPformerConfig = presets.mortality();
export async function predict(): Promise<readonly number[]> {
  const model = await HPformer.create(config, { seed: 1 });
  const { probabilities } = await model.run({ features: new Tensor('float32', new Float32Array(48 * 76), [1, 48, 76]) });
  return probabilities.dims;
}
`;
    for (const ending of ['mts', 'cts']) writeFileSync(join(home, `typed.${ending}`), source);
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const options = { noEmit: true, strict: true, module: 'node16', target: 'ES2022', types: [] };
    const lib = ['ES2023', 'ESNext.Disposable', 'DOM', 'DOM.Iterable'];
    const config = { compilerOptions: { ...options, lib }, files: ['typed.mts', 'typed.cts'] };
    writeFileSync(join(home, 'tsconfig.json'), JSON.stringify(config));
    const run = node(home, tsc, '-p', 'tsconfig.json');
    expect(run.status === 0 ? '' : run.stdout).toBe('');
  }, 120000);

  describe('its install script', () => {
    /** A fresh copy of the installed package with another prebuilt binary (or none). */
    function variant(name: string, binary?: Buffer): string {
      const folder = join(work, name);
      const installed = stage.install(folder, [bare.tarball, ...dependencies]);
      expect(installed.status === 0 ? '' : installed.stderr).toBe('');
      if (binary) {
        mkdirSync(join(folder, 'node_modules', 'hpformer', 'prebuilds', prebuildFolder), { recursive: true });
        writeFileSync(join(folder, 'node_modules', 'hpformer', prebuild), binary);
      }
      return folder;
    }

    /** A folder with a stand-in for cmake that "builds" by copying the addon compiled before. */
    function fakeCmake(): string {
      const folder = join(work, 'fake-cmake');
      mkdirSync(folder, { recursive: true });
      const addon = join(root, 'build', 'Release', 'hpformer.node');
      const script = `#!/bin/sh
if [ "$1" = --build ]; then mkdir -p "$2/Release" && cp '${addon}' "$2/Release/hpformer.node"; fi
`;
      writeFileSync(join(folder, 'cmake'), script, { mode: 0o755 });
      return folder;
    }

    /** The addon with another machine written into its ELF header. */
    function wrongArchitecture(): Buffer {
      const binary = readFileSync(join(root, 'build', 'Release', 'hpformer.node'));
      binary.writeUInt16LE(process.arch === 'arm64' ? 62 : 183, 18);
      return binary;
    }

    test('does nothing when the prebuilt binary loads', () => {
      const run = stage.runInstallScript(home, { PATH: '/nowhere' });
      expect([run.status, run.stdout, run.stderr]).toEqual([0, '', '']);
      expect(existsSync(join(home, 'node_modules', 'hpformer', 'build'))).toBe(false);
    });

    test('builds when there is no prebuilt binary, or it is for another architecture', () => {
      for (const [name, binary] of [
        ['none', undefined],
        ['wrong', wrongArchitecture()],
      ] as const) {
        const folder = variant(`build ${name}`, binary);
        const run = stage.runInstallScript(folder, { PATH: [fakeCmake(), process.env.PATH].join(delimiter) });
        expect([run.status, run.stderr]).toEqual([0, '']);
        const [program] = stage.writePrograms(folder);
        expect(node(folder, program!).status).toBe(0);
      }
    });

    test('builds when asked to, though the prebuilt binary loads', () => {
      const addon = readFileSync(join(root, 'build', 'Release', 'hpformer.node'));
      const folder = variant('build forced', addon);
      const env = { PATH: [fakeCmake(), process.env.PATH].join(delimiter), npm_config_build_from_source: 'true' };
      expect(stage.runInstallScript(folder, env).status).toBe(0);
      expect(existsSync(join(folder, 'node_modules', 'hpformer', 'build', 'Release', 'hpformer.node'))).toBe(true);
    });

    test('says in one sentence what is missing when it cannot build', () => {
      const folder = variant('no compiler');
      const tools = join(work, 'no-compiler');
      mkdirSync(tools);
      const without = stage.runInstallScript(folder, { PATH: tools });
      expect(without.status).toBe(1);
      expect(without.stderr).toMatch(
        /^hpformer: no prebuilt binary fits this machine .*needs cmake, .*install CMake .*\n$/,
      );
      copyFileSync(join(fakeCmake(), 'cmake'), join(tools, 'cmake'));
      const compiler = stage.runInstallScript(folder, { PATH: tools, CXX: undefined });
      expect(compiler.status).toBe(1);
      expect(compiler.stderr).toMatch(/^hpformer: .*needs a C\+\+ compiler, .*\n$/);
    });

    test('with scripts blocked and nothing that fits, loading is an error with a code that says what to do', () => {
      for (const [name, binary] of [
        ['none', undefined],
        ['wrong', wrongArchitecture()],
      ] as const) {
        const folder = variant(`blocked ${name}`, binary);
        const script = `const { HPformer, presets } = require('hpformer');
HPformer.create(presets.mortality()).catch((error) => console.log(JSON.stringify([error.code, error.message])));`;
        const run = node(folder, '-e', script);
        expect([run.status, run.stderr]).toEqual([0, '']);
        const [code, message] = JSON.parse(run.stdout) as [string, string];
        expect(code).toBe('ERR_HPFORMER_ADDON');
        expect(message).toMatch(/npm rebuild hpformer|install/);
      }
    });
  });
});
