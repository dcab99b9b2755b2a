/** Documents that are made from the source are up to date, links lead somewhere, and every export is documented. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
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

  test('links to a heading lead to one', () => {
    // As GitHub makes anchors: lower case, without punctuation, blanks as hyphens.
    const anchor = (heading: string) =>
      heading
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-');
    const anchors = (file: string) =>
      [...readFileSync(join(root, file), 'utf8').matchAll(/^#+ (.*)$/gm)].map((match) => anchor(match[1]!));
    const broken = sources(/\.md$/).flatMap((file) =>
      [...readFileSync(join(root, file), 'utf8').matchAll(/\]\(([^)#\s]*)#([^)\s]+)\)/g)]
        .filter(([, target]) => target === '' || target!.endsWith('.md'))
        .filter(([, target, name]) => !anchors(target === '' ? file : join(dirname(file), target!)).includes(name!))
        .map(([link]) => `${file}: ${link}`),
    );
    expect(broken).toEqual([]);
  });

  test.each(['README.md', 'docs/README.md'])(
    '%s leads through them in order: start, concepts, API, performance, CUDA, reliability, compatibility; changelog last',
    (file) => {
      const text = readFileSync(join(root, file), 'utf8');
      const list = text.slice(Math.max(0, text.indexOf('## Documents')));
      const order = [
        'start.md',
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
    },
  );

  test('every command of reliability.md is one that its script runs, with a figure that is no failure', () => {
    const { figures } = require('../tools/reliability.cjs') as { figures: [string, RegExp, number][] };
    const text = readFileSync(join(root, 'docs', 'reliability.md'), 'utf8');
    const table = text.slice(text.indexOf('## A command for each subject'));
    const rows = [...table.matchAll(/^\| .+? \| `([^`]+)` \| (.*) \|$/gm)].map((match) => match.slice(1, 3));
    expect(rows.map(([command]) => command)).toEqual(figures.map(([command]) => command));
    // The row of this very file is written when it has passed.
    const others = rows.filter(([command]) => !command!.includes('test/house/docs'));
    expect(others.filter(([, cell]) => cell === '' || /FAILED|by hand/.test(cell!))).toEqual([]);
  });

  test('docs/README.md names every page, and every figure is in a page', () => {
    const read = (file: string) => readFileSync(join(root, file), 'utf8');
    const index = read('docs/README.md');
    const pages = readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.md') && file !== 'README.md');
    expect(pages.filter((page) => !index.includes(`](${page})`))).toEqual([]);
    const drawn = readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.svg'));
    const texts = pages.map((page) => read(`docs/${page}`)).join('\n');
    expect(drawn.length).toBeGreaterThanOrEqual(4);
    expect(drawn.filter((figure) => !texts.includes(`](${figure})`))).toEqual([]);
  });

  test('figures: closed elements, a text for those who do not see them, colours for light and dark', () => {
    for (const figure of readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.svg'))) {
      const text = readFileSync(join(root, 'docs', figure), 'utf8');
      expect(text).toMatch(/^<svg [^>]*role="img" aria-label="[^"]{20,}">/);
      expect(text).toContain('prefers-color-scheme');
      const open: string[] = [];
      for (const [, closing, name, self] of text.matchAll(/<(\/?)([a-z]+)(?:\s[^<>]*?)?(\/?)>/g)) {
        if (closing) expect(open.pop()).toBe(name);
        else if (!self) open.push(name!);
      }
      expect(open).toEqual([]);
      expect(text.replace(/<[^<>]*>/g, '')).not.toMatch(/[<>]|&(?!\w+;)/);
      expect(text).not.toMatch(/NaN|undefined|https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
    }
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
