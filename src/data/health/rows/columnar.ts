import { readFile } from 'node:fs/promises';
import { HPformerError } from '../../../errors';
import { fileError } from '../../../files';
import { describe } from '../../../tensor/shape';
import { type EpisodeInput, ReadingList, type TimedReading } from '../arrays';
import { readValue } from '../discretize';
import type { EpisodeReadOptions } from '../episodes';
import { variableByName } from '../schema';

/**
 * Loads an optional peer of this package at run time.
 * @throws HPformerError `ERR_HPFORMER_FILE` saying what to install.
 */
async function peer(name: 'hyparquet' | 'apache-arrow', file: string): Promise<Record<string, unknown>> {
  try {
    return (await import(name)) as Record<string, unknown>;
  } catch (cause) {
    throw new HPformerError(
      'ERR_HPFORMER_FILE',
      `${file}: reading this format needs the optional package ${name}: npm install ${name}`,
      { cause },
    );
  }
}

/** What is used of an Arrow table. */
interface ArrowTable {
  schema: { fields: unknown[] };
  toArray(): { toJSON(): Record<string, unknown> }[];
}

async function readRows(file: string): Promise<Record<string, unknown>[]> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw fileError(file, 'read', cause);
  }
  const parquet = file.endsWith('.parquet');
  const library = await peer(parquet ? 'hyparquet' : 'apache-arrow', file);
  try {
    if (parquet) {
      const read = library.parquetReadObjects as (options: { file: ArrayBuffer }) => Promise<Record<string, unknown>[]>;
      const own = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
      return await read({ file: own });
    }
    const table = (library.tableFromIPC as (bytes: Uint8Array) => ArrowTable)(bytes);
    // The library reads bytes that are no Arrow at all as a table without columns.
    if (table.schema.fields.length === 0)
      throw new HPformerError('ERR_HPFORMER_FILE', `${file}: cannot be read (no Arrow table in it)`);
    return table.toArray().map((row) => row.toJSON());
  } catch (cause) {
    if (cause instanceof HPformerError) throw cause;
    throw fileError(file, 'read', cause);
  }
}

/**
 * Parquet and Arrow tables in either of two shapes: long (`stay, hours, variable, value`) or wide, one row a time (`stay, Hours` and
 * the 17 variable names; null is no reading). Rows of a stay together. Needs the optional peers hyparquet or apache-arrow.
 */
export async function* readColumnar(file: string, options: EpisodeReadOptions): AsyncGenerator<EpisodeInput> {
  const rows = await readRows(file);
  const finished = new Set<string>();
  let stay: string | undefined;
  let readings: TimedReading[] = [];
  const close = (): EpisodeInput => {
    const kept = readings;
    const id = stay!;
    readings = [];
    return { id, file, open: () => new ReadingList(kept, `${file} stay ${id}`) };
  };
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    const place = `${file} row ${i + 1}`;
    const leaveOut = (column: string, expected: string, value: unknown): void => {
      const reason = `column "${column}": expected ${expected}`;
      if (!options.lenient)
        throw new HPformerError('ERR_HPFORMER_INPUT', `${place}, ${reason}, got ${describe(value)}`);
      options.drops.add(reason, place);
    };
    const id = row.stay;
    if (id === undefined || id === null) {
      leaveOut('stay', 'the name of a stay', id);
      continue;
    }
    if (typeof id === 'number' && Math.abs(id) > Number.MAX_SAFE_INTEGER) {
      leaveOut('stay', 'a number up to 2^53 - 1 (above, it is not exact), or text', id);
      continue;
    }
    if (stay !== String(id)) {
      if (stay !== undefined) {
        yield close();
        finished.add(stay);
      }
      stay = String(id);
      if (finished.has(stay)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${place}: expected the rows of a stay together, got stay ${describe(stay)} again`,
        );
      }
    }
    const hours = Number(row.hours ?? row.Hours ?? Number.NaN);
    if (!Number.isFinite(hours)) {
      leaveOut('hours', 'a number of hours', row.hours ?? row.Hours);
      continue;
    }
    const long = 'variable' in row;
    const cells = long ? [[String(row.variable), row.value] as const] : Object.entries(row);
    for (const [name, value] of cells) {
      const variable = variableByName.get(name);
      if (variable === undefined) {
        if (long) leaveOut('variable', 'the name of a variable', name);
        continue;
      }
      if (value === null || value === undefined || value === '') continue;
      const number = readValue(variable, String(value));
      if (number === undefined) leaveOut(name, 'a value of the variable', value);
      else readings.push({ hours, variable, value: number });
    }
  }
  if (stay !== undefined) yield close();
}
