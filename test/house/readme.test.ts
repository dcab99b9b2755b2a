/** Every TypeScript example of the README and of docs/start.md runs as written, against dist/. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ModuleKind, ScriptTarget, transpileModule } from 'typescript';
import { root } from '../skips';

const examples = ['README.md', 'docs/start.md'].flatMap((file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!),
);

describe('README', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'hpformer-readme-'));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(root, join(folder, 'node_modules', 'hpformer'), 'junction');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('has examples', () => expect(examples.length).toBeGreaterThan(3));

  for (const [index, source] of examples.entries()) {
    test(`example ${index + 1} runs`, () => {
      const options = { module: ModuleKind.ESNext, target: ScriptTarget.ES2022 };
      const file = join(folder, `example-${index}.mjs`);
      writeFileSync(file, transpileModule(source, { compilerOptions: options }).outputText);
      const run = spawnSync(process.execPath, [file], { cwd: folder, encoding: 'utf8', timeout: 50000 });
      expect(run.stderr).toBe('');
      expect(run.status).toBe(0);
      expect(run.stdout).not.toBe('');
    });
  }

  test('all of them type-check', () => {
    const files = examples.map((source, index) => {
      const file = join(folder, `example-${index}.mts`);
      writeFileSync(file, source);
      return file;
    });
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const lib = ['--lib', 'ES2023,ESNext.Disposable'];
    const flags = ['--noEmit', '--strict', '--module', 'node16', '--target', 'ES2022', '--skipLibCheck', ...lib];
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules', '@types')];
    const run = spawnSync(process.execPath, [tsc, ...flags, ...types, ...files], { cwd: folder, encoding: 'utf8' });
    expect(run.status === 0 ? '' : run.stdout).toBe('');
  }, 300000);
});
