/** The NEON level, cross-built and run under qemu-user: test/tools/neon.sh ends with 77 where the tools are absent. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root, testUnless } from '../skips';

const has = (tool: string) => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;
const missing =
  process.arch === 'arm64' ? undefined : ['aarch64-linux-gnu-g++', 'qemu-aarch64'].find((tool) => !has(tool));

testUnless(
  missing === undefined ? undefined : `no ${missing}`,
  'cpu_test at the NEON level, float32 and bfloat16',
  () => {
    const run = spawnSync('bash', [join(root, 'test/tools/neon.sh'), '25'], { encoding: 'utf8' });
    expect(run.status === 0 ? '' : run.stdout + run.stderr).toBe('');
    expect(run.stdout.match(/isa neon, \w+: .* 0 failures/g)).toHaveLength(2);
  },
  900000,
);
