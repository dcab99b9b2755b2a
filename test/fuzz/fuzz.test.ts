/**
 * A short, seeded search of everything that reads bytes (search.ts says how to repeat one); weights.test.ts and tables.test.ts search
 * six of them by the clock. What any search found is kept and tried again: findings/ by name (<target>-<what>), and corpus/, files that coverage
 * led to. `npm run test:fuzz` searches on.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { seed } from '../seed';
import { fileOf, kept } from './corpus';
import { search, timed } from './search';
import { guarded, targets } from './targets';

const findings = join(__dirname, 'findings');
const corpus = join(__dirname, 'corpus');

describe(`hostile bytes, SEED=${seed}`, () => {
  for (const target of targets.filter(({ name }) => !timed.includes(name))) search(target, 'cases');

  // Those of native code are read by test/tools/fuzz-native.sh.
  const named = readdirSync(findings).filter((name) => !name.startsWith('native-'));
  test.each(named.sort())('kept finding %s', async (name) => {
    const target = targets.find((candidate) => name.startsWith(`${candidate.name}-`));
    expect(target).toBeDefined();
    await guarded(target!, fileOf(target!, readFileSync(join(findings, name))));
  });

  test.each(targets.map((target) => [target.name, target] as const))('%s: the kept corpus', async (name, target) => {
    const files = kept(corpus, name);
    expect(files.length).toBeGreaterThan(0);
    for (const [i, data] of files.entries()) {
      try {
        await guarded(target, fileOf(target, data));
      } catch (error) {
        throw new Error(`${name} ${i}: ${(error as Error).stack}`);
      }
    }
  });
});

test('every target that is searched by the clock is searched somewhere', () => {
  const files = readdirSync(__dirname).filter((name) => name.endsWith('.test.ts'));
  const called = files.flatMap((name) => {
    const [, list = ''] = /searchByTheClock\(([^)]*)\)/.exec(readFileSync(join(__dirname, name), 'utf8')) ?? [];
    return [...list.matchAll(/'(\w+)'/g)].map((match) => match[1]!);
  });
  expect(called.sort()).toEqual([...timed].sort());
});
