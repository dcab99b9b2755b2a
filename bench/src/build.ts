/** Builds and runs the native parts of bench/ with CMake; everything but the program's own output goes to stderr. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from './package';

/** Path of a program, built when stale. CMake itself knows what is. */
export function program(folder: 'native' | 'peers', name: string): string {
  const source = join(root, 'bench', folder);
  const build = join(source, 'build');
  const steps = [
    ...(existsSync(join(build, 'CMakeCache.txt')) ? [] : [['-S', source, '-B', build]]),
    ['--build', build, '--parallel', String(availableParallelism()), '--target', name],
  ];
  for (const args of steps) {
    const { error, status } = spawnSync('cmake', args, { stdio: ['ignore', 2, 2] });
    if (error || status !== 0) {
      console.error(`bench: cmake ${args.join(' ')} failed${error ? ` (${error.message})` : ''}`);
      process.exit(1);
    }
  }
  return join(build, name);
}

/** Runs a program and returns what it printed. */
export function capture(file: string, args: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 26 });
}
