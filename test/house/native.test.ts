/** Runs every native test program (CTest) as a test of its own. test/setup.cjs built them. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root } from '../skips';

const build = join(root, 'build');
const listing = spawnSync('ctest', ['--test-dir', build, '--show-only=json-v1'], { encoding: 'utf8' });
const { tests } = JSON.parse(listing.stdout) as { tests: { name: string }[] };

describe('native tests', () => {
  test('there are some', () => {
    expect(tests.length).toBeGreaterThan(0);
  });

  for (const { name } of tests) {
    test(`${name}`, () => {
      const exact = `^${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;
      const run = spawnSync('ctest', ['--test-dir', build, '--output-on-failure', '-R', exact], { encoding: 'utf8' });
      expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
    }, 600000);
  }
});
