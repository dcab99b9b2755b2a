/** The workflows call what is there: scripts of package.json, files of the project, projects' actions by a version. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../skips';

const folder = join(root, '.github', 'workflows');
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

describe.each(readdirSync(folder))('%s', (name) => {
  const text = readFileSync(join(folder, name), 'utf8');

  test('runs scripts and files of this project', () => {
    const called = [...text.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map((match) => match[1]!);
    expect(called.filter((script) => scripts[script] === undefined)).toEqual([]);
    const files = [...text.matchAll(/\bnode ([\w/-]+\.cjs)/g), ...text.matchAll(/jest (test\/[\w/]+)/g)];
    const there = (file: string) => existsSync(join(root, file)) || existsSync(join(root, `${file}.test.ts`));
    expect(files.map((match) => match[1]!).filter((file) => !there(file))).toEqual([]);
    expect(called.length + files.length).toBeGreaterThan(0);
  });

  test('asks for no more rights than it needs, names versions, and ends in time', () => {
    expect(text).toMatch(/^permissions: \{ contents: read \}$/m);
    const uses = [...text.matchAll(/uses: (\S+)/g)].map((match) => match[1]!);
    expect(uses.filter((action) => !/^[\w-]+\/[\w-]+@v\d+$/.test(action))).toEqual([]);
    const jobs = text.slice(text.indexOf('\njobs:')).match(/^ {2}\w+:$/gm)!;
    expect(text.match(/timeout-minutes: \d+/g)).toHaveLength(jobs.length);
    expect(text).not.toMatch(/\t/);
  });
});
