import { open } from 'node:fs/promises';
import path from 'node:path';
import { HPformerError } from '../../errors';
import { fileError, readJson, readText, readWhole } from '../../files';
import { checkInteger } from '../../model/options';
import { describe } from '../../tensor/shape';
import { checkType } from '../check';
import type { PreparedEpisode } from './arrays';
import { npyHeaderBytes } from './npy';
import type { PreparedManifest } from './prepare';

/** What a damaged folder of prepared arrays is. */
function damaged(where: string, message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_FILE', `${where}: ${message}`);
}

/** The manifest of a folder, with everything that reading depends on checked. */
async function readManifest(
  folder: string,
  preprocessing: string,
): Promise<{ episodes: number; steps: number; width: number }> {
  const manifest = ((await readJson(path.join(folder, 'prepare.json'))) ?? {}) as Partial<PreparedManifest>;
  if (manifest.format !== 'hpformer-prepared' || manifest.version !== 1) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${folder}: expected prepared arrays of version 1, got ${describe(manifest.format)} ${describe(manifest.version)}`,
    );
  }
  if (manifest.preprocessing !== preprocessing) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${folder}: expected arrays made with the preprocessing ${preprocessing} of the model, got ${describe(manifest.preprocessing)}`,
    );
  }
  const { episodes, steps, columns } = manifest;
  const natural = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!natural(episodes) || !natural(steps) || steps === 0 || !Array.isArray(columns) || columns.length === 0) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${folder}: expected a number of stays, a number of steps and a list of columns, got ${describe(episodes)}, ${describe(steps)} and ${describe(columns)}`,
    );
  }
  return { episodes, steps, width: columns.length };
}

/** One int32 a stay. */
async function readIntegers(file: string, count: number): Promise<Int32Array> {
  const bytes = await readWhole(file);
  if (bytes.length !== npyHeaderBytes + 4 * count) {
    throw damaged(file, `expected ${count} numbers (${npyHeaderBytes + 4 * count} bytes), got ${bytes.length} bytes`);
  }
  const numbers = new Int32Array(count);
  new Uint8Array(numbers.buffer).set(bytes.subarray(npyHeaderBytes));
  return numbers;
}

/**
 * Reads arrays that `prepareArrays` wrote back in batches.
 *
 * @param preprocessing - hash that the arrays must have been made with.
 * @param batch - stays at a time, at least 1.
 * @throws HPformerError `ERR_HPFORMER_INPUT` for arrays of another preprocessing, `ERR_HPFORMER_FILE` for a file that is missing
 * or of another size than `prepare.json` says; `ERR_HPFORMER_TYPE` and `ERR_HPFORMER_RANGE` for arguments.
 */
export async function* readPrepared(
  folder: string,
  preprocessing: string,
  batch: number,
): AsyncGenerator<PreparedEpisode[]> {
  checkType('readPrepared: folder', folder, 'string');
  checkType('readPrepared: preprocessing', preprocessing, 'string');
  checkInteger('readPrepared: batch', batch, 1, Number.MAX_SAFE_INTEGER);
  const { episodes, steps, width } = await readManifest(folder, preprocessing);
  const size = steps * width;
  const ids = (await readText(path.join(folder, 'ids.txt'))).split('\n');
  if (ids.length !== episodes + 1) {
    throw damaged(path.join(folder, 'ids.txt'), `expected ${episodes} lines, got ${ids.length - 1}`);
  }
  const bins = await readIntegers(path.join(folder, 'bins.npy'), episodes);
  const step = await readIntegers(path.join(folder, 'step.npy'), episodes);
  const name = path.join(folder, 'features.npy');
  const file = await open(name).catch((cause) => {
    throw fileError(name, 'read', cause);
  });
  try {
    // What the manifest claims is held against the file before memory of that size is asked for.
    const { size: bytes } = await file.stat();
    const expected = npyHeaderBytes + 4 * size * episodes;
    if (bytes !== expected)
      throw damaged(name, `expected ${episodes} stays of ${size} numbers (${expected} bytes), got ${bytes} bytes`);
    for (let from = 0; from < episodes; from += batch) {
      const count = Math.min(batch, episodes - from);
      const data = new Float32Array(count * size);
      const bytes = new Uint8Array(data.buffer);
      const at = npyHeaderBytes + from * size * 4;
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await file.read(bytes, done, bytes.length - done, at + done);
        if (bytesRead === 0) throw damaged(name, `expected ${expected} bytes, got the end after ${at + done}`);
        done += bytesRead;
      }
      yield Array.from({ length: count }, (_, i) => ({
        id: ids[from + i]!,
        features: data.subarray(i * size, (i + 1) * size),
        bins: bins[from + i]!,
        step: step[from + i]!,
        skipped: 0,
        observed: undefined,
        lastReadingAge: Number.NaN,
      }));
    }
  } finally {
    await file.close();
  }
}
