import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { HPformerError } from '../../errors';
import { fileError } from '../../files';
import { checkFields, checkType } from '../check';
import { type DropReport, type EpisodeInput, episodeFromBytes } from './arrays';
import type { CrewJob } from './crew';
import { readBytesSync } from './files';
import { readColumnar } from './rows/columnar';
import { readFhir } from './rows/fhir';
import { readJsonLines } from './rows/jsonl';

/** Files read before the event loop gets its turn. */
const burst = 32;

/** Where inputs that are left out are counted, and what is done with a malformed one. */
export interface EpisodeReadOptions {
  drops: DropReport;
  /** Malformed inputs are counted instead of ending the run. Default false. */
  lenient?: boolean | undefined;
}

/** The name of a stay from its file: `x/10001_episode1_timeseries.csv` and `10001/episode1_timeseries.csv` are `10001_episode1`. */
export function episodeId(file: string): string {
  const base = path.basename(file).replace(/(_timeseries)?\.csv$/, '');
  return /^episode\d+$/.test(base) ? `${path.basename(path.dirname(path.resolve(file)))}_${base}` : base;
}

const extensions = ['.csv', '.jsonl', '.ndjson', '.json', '.parquet', '.arrow', '.feather'];

/**
 * Every input file of the given files and folders, folders depth first in name order; only one folder's names are held at a time.
 * In folders only time series are taken among CSV files (`…timeseries.csv`); list files and episode descriptions are not. Links are
 * followed; a folder that links lead to again is not read again.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` for what cannot be read, `ERR_HPFORMER_TYPE` for anything but a list of paths.
 */
export async function* inputFiles(inputs: readonly string[]): AsyncGenerator<string> {
  checkType('inputs', inputs, 'strings');
  for (const input of inputs) {
    const there = await stat(input).catch((cause) => {
      throw fileError(input, 'read', cause);
    });
    if (!there.isDirectory()) {
      if (!extensions.includes(path.extname(input))) {
        throw new HPformerError(
          'ERR_HPFORMER_FILE',
          `${input}: expected a folder or a file ending in ${extensions.join(', ')}`,
        );
      }
      yield regular(input, there);
      continue;
    }
    yield* folderFiles(input, new Set());
  }
}

/** @param seen folders so far, without links: links may lead round in circles. */
async function* folderFiles(folder: string, seen: Set<string>): AsyncGenerator<string> {
  const unread = (cause: unknown): never => {
    throw fileError(folder, 'read', cause);
  };
  const real = await realpath(folder).catch(unread);
  if (seen.has(real)) return;
  seen.add(real);
  const entries = await readdir(folder, { withFileTypes: true }).catch(unread);
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const file = path.join(folder, entry.name);
    // A link that leads nowhere is an error when it is read, if its name says that it should be.
    const to = entry.isSymbolicLink() ? await stat(file).catch(() => entry) : entry;
    if (to.isDirectory()) yield* folderFiles(file, seen);
    else if (entry.name.endsWith('timeseries.csv')) yield regular(file, to);
    else if (!entry.name.endsWith('.csv') && extensions.includes(path.extname(entry.name))) yield regular(file, to);
  }
}

/** A file that ends: opening a pipe nobody writes to would hold up the process for ever, signals too. @throws HPformerError. */
function regular(file: string, entry: { isFile(): boolean; isSymbolicLink(): boolean }): string {
  if (entry.isFile() || entry.isSymbolicLink()) return file;
  throw new HPformerError('ERR_HPFORMER_FILE', `${file}: expected a file, got something else`);
}

/** What to say where inputs hold no stay. */
export function noStays(inputs: readonly string[], drops: DropReport): HPformerError {
  const left =
    drops.total > 0
      ? `; left out: ${drops}`
      : ` (folders are searched for …timeseries.csv, ${extensions.slice(1).join(', ')})`;
  return new HPformerError('ERR_HPFORMER_INPUT', `${inputs.join(', ')}: expected at least one stay, got none${left}`);
}

/** Number of input files in files and folders, for the time left; folders that cannot be read count as none. */
export async function countFiles(inputs: readonly string[]): Promise<number> {
  let count = 0;
  try {
    for await (const _ of inputFiles(inputs)) count++;
  } catch (error) {
    if (!(error instanceof HPformerError)) return count;
  }
  return count;
}

/**
 * Every stay of the given files and folders, in order, in constant memory (JSON lines: stay by stay; FHIR bundles, Parquet and Arrow:
 * one file at a time). Episode files are named only: whoever needs one reads it.
 */
export async function* episodeJobs(inputs: readonly string[], options: EpisodeReadOptions): AsyncGenerator<CrewJob> {
  for await (const file of inputFiles(inputs)) {
    if (file.endsWith('.csv')) yield { id: episodeId(file), file };
    else for await (const input of readOther(file, options)) yield { id: input.id, file, input };
  }
}

function readOther(file: string, options: EpisodeReadOptions): AsyncGenerator<EpisodeInput> {
  if (file.endsWith('.json')) return readFhir(file, options);
  if (file.endsWith('.jsonl') || file.endsWith('.ndjson')) return readJsonLines(file, options);
  return readColumnar(file, options);
}

/**
 * Every stay of the given files and folders, in order, in constant memory (JSON lines: stay by stay; FHIR bundles, Parquet and Arrow:
 * one file at a time). Episode files, a few kilobytes each, are read
 * synchronously: that is five times cheaper than a promise each. The event loop gets a turn every 32 files.
 *
 * @throws HPformerError as {@link inputFiles}, `ERR_HPFORMER_INPUT` for malformed inputs of the other formats.
 */
export async function* openEpisodes(
  inputs: readonly string[],
  options: EpisodeReadOptions,
): AsyncGenerator<EpisodeInput> {
  checkFields('openEpisodes: options', options, { drops: 'object', lenient: 'boolean?' });
  checkType('openEpisodes: drops: add', options.drops.add, 'function');
  let read = 0;
  for await (const { id, file, input } of episodeJobs(inputs, options)) {
    if (input) {
      yield input;
      continue;
    }
    if (++read % burst === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    yield episodeFromBytes(id, file, readBytesSync(file));
  }
}
