/**
 * `node bench/run.cjs callgrind [--write] [--binary FILE]`: instructions of the hot kernels, counted by valgrind's callgrind. Repeatable
 * where times are not; more than 3 % above the committed counts (bench/callgrind.json, by compiler and ISA level) fails. `--write`
 * records the counts of this compiler. Without valgrind, or without counts of this compiler: one line, exit 0.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { program } from './build';
import { type Counts, compareCounts } from './counts';
import { root } from './package';

const committed = join(root, 'bench', 'callgrind.json');
const kernels = [
  'gemm 128',
  'gemm 256',
  'gemm 128 relu residual',
  'layernorm 128',
  'keyScores 128 S=7',
  'scanBlock 128',
  'matvec 128',
  'gemm folded 128x56',
  'keyAttentionLanes 128 S=4',
  'gemm fixed 128',
  'gemm fixed folded 128x56',
  'matvec fixed 128',
];
const { values: options } = parseArgs({
  options: { write: { type: 'boolean', default: false }, binary: { type: 'string' } },
});

if (spawnSync('valgrind', ['--version']).status !== 0) {
  console.log('callgrind: 1 skipped (no valgrind here)');
  process.exit(0);
}
const binary = options.binary ?? program('native', 'hpformer_native');
// Valgrind knows AVX2 and nothing above it.
const env = { ...process.env, HPFORMER_ISA: 'avx2', HPFORMER_THREADS: '1' };
const folder = mkdtempSync(join(tmpdir(), 'hpformer-callgrind-'));

/** Instructions of one call, over 20. */
function instructions(kernel: string): number {
  const args = [
    '--tool=callgrind',
    `--callgrind-out-file=${join(folder, 'out')}`,
    '--toggle-collect=hpformer_counted',
    ...[binary, 'count', kernel, '20'],
  ];
  const { status, stderr } = spawnSync('valgrind', args, { encoding: 'utf8', env });
  const counted = /Collected\s*:\s*(\d+)/.exec(stderr ?? '');
  if (status !== 0 || !counted) throw new Error(`callgrind of "${kernel}" failed:\n${stderr}`);
  return Number(counted[1]) / 20;
}

try {
  const { compiler, isa } = JSON.parse(spawnSync(binary, ['identity'], { encoding: 'utf8', env }).stdout) as {
    compiler: string;
    isa: string;
  };
  const identity = `${compiler}, ${isa}`;
  const all = JSON.parse(readFileSync(committed, 'utf8')) as Record<string, Counts>;
  const before = all[identity];
  if (!before && !options.write) {
    console.log(`callgrind: 1 skipped (no counts recorded for ${identity}; --write records them)`);
  } else {
    const counts: Counts = {};
    for (const kernel of kernels) counts[kernel] = Math.round(instructions(kernel));
    const changes = compareCounts(before ?? {}, counts);
    for (const { kernel, text, failed } of changes)
      console.log(`${failed ? 'FAILED' : 'ok    '} ${kernel.padEnd(26)} ${text}`);
    const failed = changes.filter((change) => change.failed).length;
    if (options.write) {
      writeFileSync(committed, `${JSON.stringify({ ...all, [identity]: counts }, null, 2)}\n`);
      console.log(`written to bench/callgrind.json for ${identity}`);
    } else {
      console.log(`${changes.length - failed} passed, ${failed} failed`);
      process.exitCode = failed > 0 ? 1 : 0;
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
