import { SHARE_ENV, Worker } from 'node:worker_threads';
import { cudaLibrary } from '../skips';

/**
 * Names the driver library to the addon. jest gives tests a copy of `process.env`, which native code does not see, so the
 * variable is set by a worker that shares the environment of the process itself. Test files that follow in the same process
 * (and the programs that they start) find the environment as it was.
 */
export async function useCudaLibrary(): Promise<void> {
  const library = cudaLibrary();
  if (library === undefined) throw new Error('no CUDA driver library: the test should have been skipped');
  await setLibrary(library);
}

async function setLibrary(library: string | undefined): Promise<void> {
  const name = 'process.env.HPFORMER_CUDA_LIBRARY';
  const change = library === undefined ? `delete ${name}` : `${name} = ${JSON.stringify(library)}`;
  const worker = new Worker(change, { eval: true, env: SHARE_ENV });
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
}

afterAll(() => setLibrary(process.env.HPFORMER_CUDA_LIBRARY));
