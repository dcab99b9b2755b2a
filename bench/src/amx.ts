/** The AMX probe of `bench/native`: how fast one core's tiles are at this moment. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { program } from './build';

const hasAmx = () =>
  existsSync('/proc/cpuinfo') && /\bamx_bf16\b/.test(readFileSync('/proc/cpuinfo', 'utf8').slice(0, 20000));

/** A function that measures TFLOP/s of one core (0 when that fails), built on first use; undefined where there is no AMX. */
export function amxProbe(): (() => number) | undefined {
  if (!hasAmx()) return undefined;
  const binary = program('native', 'hpformer_native');
  return () => {
    const { status, stdout } = spawnSync(binary, ['amx', '5'], { encoding: 'utf8' });
    const gflops = Number(stdout);
    return status === 0 && gflops > 0 ? gflops / 1000 : 0;
  };
}
