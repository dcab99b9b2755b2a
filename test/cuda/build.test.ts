/** HPFORMER_CUDA: what the build does with and without nvcc, and what an addon without kernels says. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeUnless, notOn, root, testUnless, withoutProgram } from '../skips';

describeUnless(notOn('linux') ?? withoutProgram('cmake'), 'HPFORMER_CUDA', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'hpformer-configure-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Programs are looked for below a folder without any: the machine has no nvcc then. */
  const hidden = [`-DCMAKE_FIND_ROOT_PATH=${join(tmpdir(), 'nothing')}`, '-DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=ONLY'];
  const shown = ['-UCMAKE_FIND_ROOT_PATH', '-UCMAKE_FIND_ROOT_PATH_MODE_PROGRAM'];
  const configure = (cuda: string, ...more: string[]) =>
    spawnSync('cmake', ['-S', root, '-B', folder, `-DHPFORMER_CUDA=${cuda}`, '-DCMAKE_JS_INC=', ...more], {
      encoding: 'utf8',
    });

  test('OFF builds no kernels, with nvcc or without', () => {
    const { status, stdout } = configure('OFF');
    expect(stdout).toContain('CUDA kernels: not built (HPFORMER_CUDA=OFF)');
    expect(status).toBe(0);
  }, 120000);

  test('AUTO without nvcc builds none and says so', () => {
    const { status, stdout } = configure('AUTO', ...hidden);
    expect(stdout).toContain('CUDA kernels: not built (HPFORMER_CUDA=AUTO, no nvcc)');
    expect(status).toBe(0);
  }, 120000);

  test('ON without nvcc is an error', () => {
    const { status, stderr } = configure('ON', ...hidden);
    expect(stderr).toContain('HPFORMER_CUDA=ON, but nvcc was not found');
    expect(status).not.toBe(0);
  }, 120000);

  testUnless(
    withoutProgram('nvcc'),
    'AUTO and ON with nvcc build them',
    () => {
      for (const cuda of ['AUTO', 'ON']) {
        const { status, stdout } = configure(cuda, ...shown);
        expect(stdout).toMatch(/CUDA kernels: .*nvcc.* \(developer\)/);
        expect(status).toBe(0);
      }
    },
    120000,
  );
});

const absent = join(root, 'build', 'absent');
const program = `
const { devices, HPformer, presets } = require(${JSON.stringify(join(root, 'dist', 'index.js'))});
const config = presets.mortality({ hidden: 16, layers: 1 });
(async () => {
  const { device } = await HPformer.create(config, { device: 'auto' });
  const refused = await HPformer.create(config, { device: 'cuda' }).catch(({ code, message }) => ({ code, message }));
  console.log(JSON.stringify({ device, refused, cuda: devices().filter(({ kind }) => kind === 'cuda') }));
})();`;

describeUnless(existsSync(absent) ? undefined : 'the native tests were not built', 'an addon without kernels', () => {
  test('works on the CPU and says what it lacks', () => {
    const env = { ...process.env, HPFORMER_PREBUILD: absent };
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', env });
    expect(stderr).toBe('');
    const reason = 'this build has no CUDA kernels (nvcc was not found, or HPFORMER_CUDA=OFF)';
    const { device, refused, cuda } = JSON.parse(stdout);
    expect(device).toBe('cpu');
    expect(refused).toEqual({ code: 'ERR_HPFORMER_DEVICE', message: expect.stringContaining(reason) });
    expect(cuda).toEqual([expect.objectContaining({ available: false, reason, precisions: [] })]);
  });
});
