/** Instruction counts of the hot kernels instead of timed tests: at most 3 % above the recorded ones. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { compareCounts } from '../../bench/src/counts';
import { root, testUnless, withoutProgram } from '../skips';

const binary = join(root, 'build', 'test', 'native', 'hpformer_native');
const recorded = JSON.parse(readFileSync(join(root, 'bench', 'callgrind.json'), 'utf8')) as Record<string, object>;

/** Why counts cannot be compared here. Checked by the program itself, so that another compiler than `c++` is noticed too. */
function reason(): string | undefined {
  const missing = withoutProgram('valgrind');
  if (missing) return missing;
  if (!existsSync(binary)) return 'the kernel probe was not built (no native tests)';
  const env = { ...process.env, HPFORMER_ISA: 'avx2' };
  const { compiler, isa } = JSON.parse(spawnSync(binary, ['identity'], { encoding: 'utf8', env }).stdout);
  const identity = `${compiler}, ${isa}`;
  return identity in recorded ? undefined : `no instruction counts recorded for ${identity}`;
}

testUnless(
  reason(),
  'instructions of the hot kernels are within 3 % of the recorded ones',
  () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'bench', 'run.cjs'), 'callgrind', '--binary', binary],
      { encoding: 'utf8' },
    );
    expect({ status, said: stdout + stderr }).toEqual({
      status: 0,
      said: expect.stringMatching(/12 passed, 0 failed/),
    });
  },
  240000,
);

test('what fails, and what does not', () => {
  const before = { same: 1000, slower: 1000, atBound: 1000, faster: 1000, gone: 1000 };
  const after = { same: 1000, slower: 1031, atBound: 1030, faster: 500, fresh: 10 };
  const failed = compareCounts(before, after).filter((change) => change.failed);
  expect(failed.map(({ kernel }) => kernel)).toEqual(['slower', 'gone']);
  expect(compareCounts({ a: 100 }, { a: Number.NaN })[0]!.failed).toBe(true);
  expect(compareCounts({ a: 100 }, { a: 50 })[0]!.text).toContain('run with --write to keep the gain');
});
