import { SHARE_ENV, Worker } from 'node:worker_threads';
import { cudaChecks, cudaLibrary } from '../skips';

/**
 * Names the driver library to the addon. jest gives tests a copy of `process.env`, which native code does not see, so the
 * variables are set by a worker that shares the environment of the process itself. Test files that follow in the same process
 * (and the programs that they start) find the environment as it was.
 */
export async function useCudaLibrary(): Promise<void> {
  const library = cudaLibrary();
  if (library === undefined) throw new Error('no CUDA driver library: the test should have been skipped');
  await setEnvironment({ ...cudaChecks, HPFORMER_CUDA_LIBRARY: library });
}

async function setEnvironment(variables: Record<string, string | undefined>): Promise<void> {
  const change = Object.entries(variables).map(([name, value]) =>
    value === undefined ? `delete process.env.${name}` : `process.env.${name} = ${JSON.stringify(value)}`,
  );
  const worker = new Worker(change.join(';'), { eval: true, env: SHARE_ENV });
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
}

afterAll(() => {
  const names = [...Object.keys(cudaChecks), 'HPFORMER_CUDA_LIBRARY'];
  return setEnvironment(Object.fromEntries(names.map((name) => [name, process.env[name]])));
});
