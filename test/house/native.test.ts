/** Runs every native test program (CTest) as a test of its own. test/setup.cjs built them. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { loadAddon } from '../../src/native/load';
import { cudaChecks, cudaLibrary, root, testUnless, withoutCudaLibrary } from '../skips';

const build = join(root, 'build');
const listing = spawnSync('ctest', ['--test-dir', build, '--show-only=json-v1'], { encoding: 'utf8' });
const { tests } = JSON.parse(listing.stdout) as { tests: { name: string }[] };
const library = cudaLibrary();
const levels = loadAddon().info().isaLevels;
// wide and wide_tiles are the 16-lane logic compiled for AVX2: test builds only.
const available = new Set([...levels, ...(levels.includes('avx2') ? ['wide', 'wide_tiles'] : [])]);
const env = { ...process.env, ...cudaChecks, ...(library === undefined ? {} : { HPFORMER_CUDA_LIBRARY: library }) };

describe('native tests', () => {
  test('there are some', () => {
    expect(tests.length).toBeGreaterThan(0);
  });

  const cuda = tests.some(({ name }) => name.startsWith('cuda'));
  testUnless(cuda ? undefined : 'no nvcc when the tests were built', 'CUDA kernels are compiled in', () => {
    expect(loadAddon().info().cudaCompiled).toBe(true);
  });

  for (const { name } of tests) {
    // A test program ends with 77 when the machine lacks what it needs; asking first gives the reason.
    const level = /^(?:cpu_test_(.+)_(?:float32|bfloat16)|kernels_test_(.+))$/.exec(name)?.slice(1).find(Boolean);
    const withoutLevel = level === undefined || available.has(level) ? undefined : `this machine has no ${level}`;
    const reason = name.startsWith('cuda') ? withoutCudaLibrary() : withoutLevel;
    testUnless(
      reason,
      name,
      () => {
        const args = ['--test-dir', build, '--output-on-failure', '-R', `^${name}$`];
        const run = spawnSync('ctest', args, { encoding: 'utf8', env });
        expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
        expect(run.stdout).not.toContain('Skipped');
      },
      600000,
    );
  }
});
