/**
 * `node bench/run.cjs callgrind [--write]`: instructions of the hot kernels, counted by valgrind's callgrind. Repeatable where
 * times are not; more than 3 % above the committed counts (bench/callgrind.json) fails. Without valgrind: one line, exit 0.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { program } from './build';
import { root } from './package';

const bound = 0.03;
const committed = join(root, 'bench', 'callgrind.json');
const kernels = [
  'gemm 128',
  'gemm 256',
  'gemm 128 relu residual',
  'layernorm 128',
  'keyScores 128 S=7',
  'scanBlock 128',
  'matvec 128',
];

if (spawnSync('valgrind', ['--version']).status !== 0) {
  console.log('callgrind: 1 skipped (no valgrind here)');
  process.exit(0);
}
const binary = program('native', 'hpformer_native');
const folder = mkdtempSync(join(tmpdir(), 'hpformer-callgrind-'));

/** Instructions of the whole process; start-up cancels in the difference of two counts. */
function instructions(kernel: string, times: number): number {
  const out = join(folder, 'out');
  const args = ['--tool=callgrind', `--callgrind-out-file=${out}`, binary, 'count', kernel, String(times)];
  const env = { ...process.env, HPFORMER_ISA: 'avx2', HPFORMER_THREADS: '1' };
  const { status, stderr } = spawnSync('valgrind', args, { encoding: 'utf8', env });
  const counted = /Collected\s*:\s*(\d+)/.exec(stderr ?? '');
  if (status !== 0 || !counted) throw new Error(`callgrind of "${kernel}" failed:\n${stderr}`);
  return Number(counted[1]);
}

try {
  const counts: Record<string, number> = {};
  for (const kernel of kernels) counts[kernel] = (instructions(kernel, 30) - instructions(kernel, 10)) / 20;
  const before = existsSync(committed) ? (JSON.parse(readFileSync(committed, 'utf8')) as Record<string, number>) : {};
  let failed = 0;
  for (const [kernel, count] of Object.entries(counts)) {
    const change = before[kernel] ? count / before[kernel] - 1 : 0;
    if (change > bound) failed++;
    const note = before[kernel] ? `${(100 * change).toFixed(2)} % against ${before[kernel]}` : 'new';
    console.log(
      `${change > bound ? 'FAILED' : 'ok    '} ${kernel.padEnd(26)} ${count.toFixed(0)} instructions (${note})`,
    );
  }
  if (process.argv.includes('--write')) writeFileSync(committed, `${JSON.stringify(counts, null, 2)}\n`);
  console.log(`${kernels.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
