import fs from 'node:fs';
import path from 'node:path';
import { createGunzip } from 'node:zlib';
import { HPformerError } from '../errors';
import { reasonOf } from '../files';
import { describe } from '../tensor/shape';

/** One data row: `row` counts from 1 after the header, `fields` are in the order of the columns asked for. */
export interface CsvRow {
  row: number;
  /** Undefined where an optional column is not in the file; an empty string is a missing value. */
  fields: (string | undefined)[];
}

const longestLine = 1 << 20;

function fail(file: string, message: string, cause?: unknown): HPformerError {
  return new HPformerError(
    'ERR_HPFORMER_FILE',
    `${path.basename(file)}: ${message}`,
    cause === undefined ? {} : { cause },
  );
}

/** Text lines of a file in batches, unpacked when the name ends in `.gz`; memory does not grow with the file. */
async function* readLines(file: string): AsyncGenerator<string[]> {
  const source = fs.createReadStream(file, { highWaterMark: 1 << 18 });
  const stream = file.endsWith('.gz') ? source.pipe(createGunzip({ chunkSize: 1 << 18 })) : source;
  // pipe() does not pass errors on.
  if (stream !== source) source.on('error', (error) => stream.destroy(error));
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = lines.pop()!;
      if (rest.length > longestLine) throw fail(file, `expected lines of at most ${longestLine} characters`);
      if (lines.length > 0) yield lines;
    }
    rest += decoder.decode();
  } catch (error) {
    if (error instanceof HPformerError) throw error;
    throw fail(file, `cannot be read (${reasonOf(error)})`, error);
  } finally {
    source.destroy();
  }
  if (rest !== '') yield [rest];
}

/**
 * Rows of a comma-separated file with a header line and without quotes, in batches, streaming. LF or CRLF; columns in any order;
 * further columns are ignored; empty lines are skipped.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` when the file cannot be read, the header lacks a column or names one twice, or a row has
 * another number of fields than the header, or a quote.
 */
export async function* readCsv(
  file: string,
  required: readonly string[],
  optional: readonly string[] = [],
): AsyncGenerator<CsvRow[]> {
  let positions: number[] | undefined;
  let width = 0;
  let row = 0;
  for await (const lines of readLines(file)) {
    const rows: CsvRow[] = [];
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (positions === undefined) {
        const header = line.replace(/^\uFEFF/, '').split(',');
        width = header.length;
        const missing = required.filter((name) => !header.includes(name));
        if (missing.length > 0) {
          throw fail(
            file,
            `header: expected the columns ${required.join(', ')}, got ${describe(line)} (no ${missing.join(', ')})`,
          );
        }
        const wanted = [...required, ...optional];
        const twice = wanted.find((name) => header.indexOf(name) !== header.lastIndexOf(name));
        if (twice !== undefined) throw fail(file, `header: expected every column once, got ${describe(twice)} twice`);
        positions = wanted.map((name) => header.indexOf(name));
        continue;
      }
      row++;
      if (line === '') continue;
      if (line.includes('"')) throw fail(file, `row ${row}: expected fields without quotes, got ${describe(line)}`);
      const all = line.split(',');
      if (all.length !== width) throw fail(file, `row ${row}: expected ${width} fields, got ${all.length}`);
      rows.push({ row, fields: positions.map((p) => (p < 0 ? undefined : all[p])) });
    }
    if (rows.length > 0) yield rows;
  }
  if (positions === undefined)
    throw fail(file, `expected a header line with the columns ${required.join(', ')}, got an empty file`);
}

const decimal = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

/**
 * A decimal number of a field.
 * @throws HPformerError `ERR_HPFORMER_INPUT` that names file, row and column.
 */
export function parseNumber(file: string, row: number, column: string, text: string | undefined): number {
  const value = text !== undefined && decimal.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(value)) throw badField(file, row, column, 'a number', text);
  return value + 0; // no negative zero
}

/** As {@link parseNumber}, for whole numbers. */
export function parseInteger(file: string, row: number, column: string, text: string | undefined): number {
  const value = text !== undefined && decimal.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw badField(file, row, column, 'a whole number', text);
  return value + 0;
}

/** The error of one field: where, what was expected, what came. */
export function badField(
  file: string,
  row: number,
  column: string,
  expected: string,
  got: string | undefined,
): HPformerError {
  const came = got === undefined || got === '' ? 'nothing' : describe(got);
  return new HPformerError(
    'ERR_HPFORMER_INPUT',
    `${path.basename(file)}: row ${row}, column ${column}: expected ${expected}, got ${came}`,
  );
}

/** `folder/name.csv.gz` or `folder/name.csv`, whichever exists. */
export function findTable(folder: string, name: string): string {
  for (const file of [path.join(folder, `${name}.csv.gz`), path.join(folder, `${name}.csv`)]) {
    if (fs.existsSync(file)) return file;
  }
  throw new HPformerError('ERR_HPFORMER_FILE', `${folder}: expected ${name}.csv.gz or ${name}.csv there, got neither`);
}
