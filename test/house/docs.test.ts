/** Documents that are made from the source are up to date, links lead somewhere, and every export is documented. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { configRows } from '../../src/config/describe';
import { errorCodes } from '../../src/errors';
import { root } from '../skips';

const { sources } = require('../tools/lint.cjs') as { sources: (pattern: RegExp) => string[] };
const { documents } = require('../../docs/readme.cjs') as {
  documents: (from: object) => { file: string; text: string }[];
};

describe('documents', () => {
  for (const { file, text } of documents({ errorCodes, configRows })) {
    test(`${file} says what the sources say (npm run docs)`, () => {
      expect(readFileSync(join(root, file), 'utf8')).toBe(text);
    });
  }

  test('relative links lead to a file', () => {
    const broken = sources(/\.md$/).flatMap((file) => {
      const text = readFileSync(join(root, file), 'utf8').replace(/```[\s\S]*?```/g, '');
      return [...text.matchAll(/\]\(([^)#\s]+)(#[^)]*)?\)/g)]
        .map((match) => match[1]!)
        .filter((target) => !/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(file), target)))
        .map((target) => `${file}: ${target}`);
    });
    expect(broken).toEqual([]);
  });

  test('the README leads through them in order: concepts, API, performance, CUDA, reliability, compatibility; changelog last', () => {
    const text = readFileSync(join(root, 'README.md'), 'utf8');
    const list = text.slice(text.indexOf('## Documents'));
    const order = [
      'concepts.md',
      'docs/api/',
      'performance.md',
      'cuda/README.md',
      'reliability.md',
      'compatibility.md',
    ];
    const places = [...order, 'CHANGELOG.md'].map((name) => list.indexOf(name));
    expect(places.every((place) => place > 0)).toBe(true);
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });

  test('files named in backticks exist', () => {
    const names = /`((?:src|binding|cuda|test|docs|examples|bench|\.github|\.ci)\/[\w./-]*\w)`/g;
    const missing = sources(/^(README|CONTRIBUTING|SECURITY|docs\/[\w-]+|prebuilds\/README)\.md$/).flatMap((file) =>
      [...readFileSync(join(root, file), 'utf8').matchAll(names)]
        .map((match) => match[1]!)
        .filter((target) => !existsSync(join(root, target)))
        .map((target) => `${file}: ${target}`),
    );
    expect(missing).toEqual([]);
  });

  test('typedoc finds no undocumented export', () => {
    const typedoc = join(root, 'node_modules', 'typedoc', 'bin', 'typedoc');
    const run = spawnSync(process.execPath, [typedoc, '--emit', 'none'], { cwd: root, encoding: 'utf8' });
    expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
  }, 300000);
});
