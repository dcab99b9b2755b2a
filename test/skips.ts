/**
 * Counted skips. A test that this machine cannot run names the reason; test/reporter.cjs counts skips by reason and fails the
 * run when one has none. `undefined` means: runs here.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadAddon } from '../src/native/load';

export const root = join(__dirname, '..');

const named = (name: string, reason: string | undefined) =>
  reason === undefined ? name : `${name} [skipped: ${reason}]`;

/** `test`, unless there is a reason not to run it here. */
export function testUnless(
  reason: string | undefined,
  name: string,
  body: () => void | Promise<void>,
  timeout?: number,
): void {
  const define = reason === undefined ? test : test.skip;
  define(named(name, reason), body as jest.ProvidesCallback, timeout);
}

/** `describe`, unless there is a reason not to run it here. */
export function describeUnless(reason: string | undefined, name: string, body: () => void): void {
  const define = reason === undefined ? describe : describe.skip;
  define(named(name, reason), body);
}

/** The driver library for the CUDA tests: HPFORMER_CUDA_LIBRARY, else the stand-in that test/setup.cjs built. */
export function cudaLibrary(): string | undefined {
  const standIn = join(root, 'build-gpusim', 'libcuda.so.1');
  return process.env.HPFORMER_CUDA_LIBRARY ?? (existsSync(standIn) ? standIn : undefined);
}

/** Checks that the stand-in driver does only when asked; a real driver does not look. */
export const cudaChecks = { GPUSIM_CHECK_INIT: '1', GPUSIM_CHECK_GLOBAL_RACE: '1' };

/** Reason when CUDA kernels cannot run: no driver library, neither named nor built from the stand-in's source, or none compiled in. */
export function withoutCudaLibrary(): string | undefined {
  if (cudaLibrary() === undefined) return 'no CUDA driver library';
  return loadAddon().info().cudaCompiled ? undefined : 'this build has no CUDA kernels';
}

/** Reason when a program is not installed (asked for its version). */
export function withoutProgram(program: string, argument = '--version'): string | undefined {
  const result = spawnSync(program, [argument], { stdio: 'ignore' });
  return result.error === undefined && result.status === 0 ? undefined : `${program} is not installed`;
}

/** Reason when this is not the platform that a test is about. */
export function notOn(platform: NodeJS.Platform): string | undefined {
  return process.platform === platform ? undefined : `not on ${platform}`;
}

/** Reason under AddressSanitizer or ThreadSanitizer (test/tools/sanitize.sh): they take terabytes of address space. */
export function underSanitizer(): string | undefined {
  return /lib[at]san/.test(process.env.LD_PRELOAD ?? '') ? 'a sanitizer takes the whole address space' : undefined;
}
