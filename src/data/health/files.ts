import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { HPformerError } from '../../errors';

/** Reads a text file. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: cannot be read (${(cause as Error).message})`, { cause });
  }
}

/** As {@link readText}, at once. @throws HPformerError `ERR_HPFORMER_FILE`. */
export function readTextSync(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: cannot be read (${(cause as Error).message})`, { cause });
  }
}

/** Reads a JSON file. @throws HPformerError `ERR_HPFORMER_FILE`. */
export async function readJsonFile(file: string): Promise<unknown> {
  const text = await readText(file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected JSON (${(cause as Error).message})`, { cause });
  }
}
