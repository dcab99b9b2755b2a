/** AMX throughput on virtual machines flips between two states; a probe beside each timed block tells which one it saw. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './package';

export interface AmxProbe {
  sample: () => void;
  /** Median TFLOP/s of one core over the samples. */
  median: () => number;
}

const hasAmx = () =>
  existsSync('/proc/cpuinfo') && /\bamx_bf16\b/.test(readFileSync('/proc/cpuinfo', 'utf8').slice(0, 20000));

/** The native probe (`bench/native`), where the processor has AMX and the probe was built; otherwise undefined. */
export function amxProbe(): AmxProbe | undefined {
  const program = join(root, 'bench', 'native', 'build', 'hpformer_native');
  if (!hasAmx() || !existsSync(program)) return undefined;
  const samples: number[] = [];
  return {
    sample: () => {
      const result = spawnSync(program, ['amx', '5'], { encoding: 'utf8' });
      const value = Number(result.stdout);
      if (result.status === 0 && value > 0) samples.push(value / 1000);
    },
    median: () => [...samples].sort((a, b) => a - b)[samples.length >> 1] ?? 0,
  };
}
