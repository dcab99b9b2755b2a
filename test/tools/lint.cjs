// Formatting and static checks of both languages, warnings as errors. `--write` formats. test/house/lint.test.ts runs the same.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..', '..');
const bin = (name, file) => path.join(root, 'node_modules', name, file);

/** Files of the project with these endings: tracked ones and new ones that git does not ignore. */
function sources(pattern) {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (listed.status !== 0) throw new Error(`git ls-files failed: ${listed.stderr}`);
  return listed.stdout.split('\n').filter((file) => pattern.test(file) && fs.existsSync(path.join(root, file)));
}

/** clang-format: the npm package's binary (Linux and macOS x64, Windows), else one on the PATH, else undefined. */
function clangFormat() {
  const suffix = process.platform === 'win32' ? 'win32/clang-format.exe' : `${process.platform}_x64/clang-format`;
  const packaged = bin('clang-format', path.join('bin', suffix));
  for (const program of process.arch === 'x64' ? [packaged, 'clang-format'] : ['clang-format']) {
    if (spawnSync(program, ['--version']).status === 0) return program;
  }
  return undefined;
}

const run = (command, args) => {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 });
  return { status: result.status ?? 1, output: `${result.stdout ?? ''}${result.stderr ?? ''}` };
};

const checks = {
  biome: ({ write }) =>
    run(process.execPath, [
      bin('@biomejs/biome', 'bin/biome'),
      ...(write ? ['check', '--write'] : ['ci', '--error-on-warnings']),
      '--colors=off',
      '--max-diagnostics=50',
      '.',
    ]),
  tsc: () => run(process.execPath, [bin('typescript', 'bin/tsc'), '--noEmit', '-p', 'tsconfig.json']),
  'clang-format': ({ write }) => {
    const files = sources(/\.(cc|h|inl|cu|cuh)$/);
    const program = clangFormat();
    if (program === undefined || files.length === 0) return { status: 0, output: '' };
    return run(program, [...(write ? ['-i'] : ['--dry-run', '-Werror']), '--style=file', ...files]);
  },
};

module.exports = { checks, clangFormat, sources, root };
if (require.main === module) {
  const write = process.argv.includes('--write');
  let failed = false;
  for (const [name, check] of Object.entries(checks)) {
    const { status, output } = check({ write });
    console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}`);
    if (status !== 0) console.log(output);
    failed ||= status !== 0;
  }
  process.exit(failed ? 1 : 0);
}
