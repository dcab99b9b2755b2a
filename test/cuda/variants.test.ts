/**
 * Golden files and random models once more in processes of their own, as the stand-in driver can be asked to be: other orders of
 * warps and blocks and another capability give the same bits; matrix products cut as tensor cores cut them stay within half the bounds of float32.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cudaLibrary, describeUnless, root, withoutCudaLibrary } from '../skips';

describeUnless(withoutCudaLibrary(), 'fixtures on other devices', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-variants-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  function digest(variant: Record<string, string>): string {
    const file = join(folder, 'digest');
    rmSync(file, { force: true });
    const jest = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
    const run = spawnSync(process.execPath, [jest, 'test/cuda/fixtures', '--runInBand', '--reporters=default'], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, ...variant, HPFORMER_TEST_DIGEST: file },
    });
    expect(run.status === 0 ? '' : run.stderr).toBe('');
    return readFileSync(file, 'utf8');
  }

  test('the same bits in any order of warps, on either capability', () => {
    const expected = digest({ GPUSIM_SEED: '0', GPUSIM_CC: '8.0' });
    expect(digest({ GPUSIM_SEED: '11', GPUSIM_CC: '8.0' })).toBe(expected);
    expect(digest({ GPUSIM_SEED: '12', GPUSIM_CC: '9.0' })).toBe(expected);
  }, 300000);

  test('the same bits of random models on the fused kernels, likewise', () => {
    const bits = (variant: Record<string, string>) => {
      const program = join(root, 'build', 'test', 'native', 'cuda_test');
      const env = { ...process.env, ...variant, HPFORMER_CUDA_LIBRARY: cudaLibrary() };
      const run = spawnSync(program, ['501', '12'], { encoding: 'utf8', env });
      expect([run.status, run.stdout]).toEqual([0, expect.stringMatching(/^12 cases .*, bits [0-9a-f]{16}\n$/)]);
      return run.stdout;
    };
    const expected = bits({ GPUSIM_SEED: '0', GPUSIM_CC: '8.0' });
    expect(bits({ GPUSIM_SEED: '21', GPUSIM_CC: '8.0' })).toBe(expected);
    expect(bits({ GPUSIM_SEED: '22', GPUSIM_CC: '9.0' })).toBe(expected);
  }, 300000);

  test('half the bounds where matrix products are cut', () => {
    expect(digest({ GPUSIM_MMA_TRUNCATE: '1', GPUSIM_SEED: '13' })).toMatch(/^[0-9a-f]{64}$/);
  }, 300000);
});
