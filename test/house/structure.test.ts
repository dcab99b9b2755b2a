/** The rules of the house (docs/architecture.md) as far as a text search can hold them. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from '../skips';

const { sources } = require('../tools/lint.cjs') as { sources: (pattern: RegExp) => string[] };
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const code = /\.(ts|cts|mts|cjs|mjs|js|cc|h|inl|cu|cuh|cpp|py|sh|cmake)$/;

/** `file:line: text` of every line that matches, so that a failure shows where to look. */
function findings(files: string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    read(file)
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${file}:${index + 1}: ${line.trim()}`] : [])),
  );
}

const under = (...folders: string[]) => sources(code).filter((file) => folders.some((f) => file.startsWith(f)));
const outside = (files: string[], ...folders: string[]) =>
  files.filter((file) => !folders.some((folder) => file.startsWith(folder)));

describe('top level', () => {
  test('holds only what the house has rooms for', () => {
    const folders = ['.ci', '.github', 'bench', 'binding', 'cuda', 'docs', 'examples', 'prebuilds', 'src', 'test'];
    const files = [
      '.clang-format',
      '.gitattributes',
      '.gitignore',
      'CHANGELOG.md',
      'CMakeLists.txt',
      'CONTRIBUTING.md',
      'LICENSE',
      'README.md',
      'SECURITY.md',
      'biome.json',
      'jest.config.cjs',
      'package-lock.json',
      'package.json',
      'tsconfig.build.json',
      'tsconfig.json',
      'typedoc.json',
    ];
    const entries = new Set(sources(/./).map((file) => file.split('/', 1)[0]!));
    expect([...entries].filter((entry) => !folders.includes(entry) && !files.includes(entry))).toEqual([]);
  });

  test('prebuilds/ has no binary in the repository', () => {
    expect(sources(/^prebuilds\//).filter((file) => file !== 'prebuilds/README.md')).toEqual([]);
  });
});

describe('native code', () => {
  test('only binding/addon knows Node-API', () => {
    const files = outside(under('binding/', 'cuda/', 'test/native/'), 'binding/addon/');
    expect(findings(files, /#\s*include\s*[<"](napi|node_api|js_native_api|node|v8|uv)[./]?\w*\.h[>"]/)).toEqual([]);
    expect(under('binding/addon/').some((file) => /#include <napi\.h>/.test(read(file)))).toBe(true);
  });

  test('the contract knows no backend, no model, no addon', () => {
    expect(findings(under('binding/contract/'), /#\s*include\s*"(binding\/(model|cpu|addon)|cuda)\//)).toEqual([]);
  });

  test('the two backends never include each other, nor model or addon', () => {
    expect(findings(under('binding/cpu/'), /#\s*include\s*"(cuda\/|binding\/(model|addon)\/)/)).toEqual([]);
    expect(findings(under('cuda/'), /#\s*include\s*"binding\/(cpu|model|addon)\//)).toEqual([]);
  });

  test('above the backends only their doors are included', () => {
    const files = under('binding/model/', 'binding/addon/');
    const inner = findings(files, /#\s*include\s*"(binding\/cpu|cuda)\//).filter(
      (line) => !/"(binding\/cpu|cuda)\/backend\.h"/.test(line),
    );
    expect(inner).toEqual([]);
  });

  test('CUDA headers stay in cuda/', () => {
    const files = outside(under('binding/', 'test/native/'), 'cuda/');
    expect(findings(files, /#\s*include\s*[<"](cuda(_runtime\w*|_fp16|_bf16)?|mma|cooperative_groups)\.h[>"]/)).toEqual(
      [],
    );
  });

  test('nothing below the addon prints, exits or aborts', () => {
    const files = outside(under('binding/', 'cuda/'), 'cuda/tools/').filter((file) =>
      /\.(cc|h|inl|cu|cuh)$/.test(file),
    );
    expect(findings(files, /\b(std::(cout|cerr|abort|exit|terminate)|f?printf\(|abort\(\)|exit\()/)).toEqual([]);
  });
});

describe('TypeScript', () => {
  test('src/native is the only importer of the addon', () => {
    const files = outside(under('src/'), 'src/native/');
    expect(findings(files, /node-gyp-build|\.node['"`]|process\.dlopen/)).toEqual([]);
    expect(under('src/native/').some((file) => /node-gyp-build/.test(read(file)))).toBe(true);
  });

  test('every error that src throws is an HPformerError', () => {
    expect(findings(outside(under('src/'), 'src/cli/'), /throw new (?!HPformerError\b)\w+/)).toEqual([]);
    // The command line has a second kind, which never leaves it: wrong usage, exit code 2.
    expect(findings(under('src/cli/'), /throw new (?!HPformerError\b|UsageError\b)\w+/)).toEqual([]);
  });

  test('only the command line writes to the terminal', () => {
    const files = outside(under('src/'), 'src/cli/');
    expect(findings(files, /\bconsole\.|process\.(stdout|stderr)\.write/)).toEqual([]);
  });

  test('src needs no package but those it declares, and never the network', () => {
    const files = under('src/');
    expect(findings(outside(files, 'src/cli/'), /['"](node:)?(https?|net|tls|dgram|http2)['"]|\bfetch\(/)).toEqual([]);
    const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>;
    const allowed = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
    const imports = files.flatMap((file) => [
      ...read(file).matchAll(/(?:from|require\(|import\()\s*'([@a-z0-9][\w@/.:-]*)'/g),
    ]);
    const names = new Set(imports.map((match) => match[1]!).filter((name) => !name.startsWith('node:')));
    expect([...names].filter((name) => !allowed.includes(name))).toEqual([]);
  });
});

describe('everywhere', () => {
  test('no file is longer than 600 lines', () => {
    const long = sources(code)
      .map((file) => ({ file, lines: read(file).split('\n').length - 1 }))
      .filter(({ lines }) => lines > 600);
    expect(long).toEqual([]);
  });

  test('nothing is left over', () => {
    const words = ['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'].join('|');
    const pattern = new RegExp(`\\b(${words})\\b|not ${'implemented'}|\\.${'only'}\\(|\\.${'skip'}\\(`);
    expect(findings(sources(code), pattern)).toEqual([]);
  });

  test('no file names the folder that this clone happens to be in', () => {
    const place = dirname(root);
    const text = sources(/\.(md|json|ya?ml|txt|csv)$|^\.ci\//).concat(sources(code));
    const escaped = place.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    const found = place.length < 3 ? [] : findings(text, new RegExp(`(^|[^A-Za-z0-9_.])${escaped}/`));
    expect(found.filter((line) => place !== '/tmp' || line.includes(root))).toEqual([]);
  });
});
