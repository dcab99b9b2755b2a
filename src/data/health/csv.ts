import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';

/** A small table in memory: header names to columns, rows as text. */
export interface CsvTable {
  readonly rows: readonly (readonly string[])[];
  /** Number in the file of each row's first line. */
  readonly lines: readonly number[];
  /** Column number by name. */
  readonly columns: ReadonlyMap<string, number>;
}

/**
 * Reads comma-separated text with a header line; fields may be quoted, quotes inside are doubled, any line end, blank lines are skipped.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` for a row with another number of fields than the header, an open quote, or a column twice.
 */
export function parseCsv(text: string, file: string): CsvTable {
  if (typeof text !== 'string') {
    throw new HPformerError('ERR_HPFORMER_INPUT', `${file}: expected CSV text, got ${describe(text)}`);
  }
  const rows: string[][] = [];
  const lines: number[] = [];
  let line = 1;
  let start = 1;
  let row: string[] = [];
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  const endRow = (): void => {
    if (row.length > 1 || row[0] !== '') {
      rows.push(row);
      lines.push(start);
    }
    row = [];
  };
  while (at < text.length) {
    if (row.length === 0) start = line;
    let field: string;
    if (text[at] === '"') {
      field = '';
      for (;;) {
        const quote = text.indexOf('"', at + 1);
        if (quote < 0) {
          throw new HPformerError('ERR_HPFORMER_INPUT', `${file} line ${start}: expected a closing quote, got the end`);
        }
        field += text.slice(at + 1, quote);
        at = quote + 1;
        if (text[at] !== '"') break;
        field += '"';
      }
      for (const character of field) if (character === '\n') line++;
    } else {
      field = '';
    }
    let end = at;
    while (end < text.length && text[end] !== ',' && text[end] !== '\n' && text[end] !== '\r') end++;
    row.push(field + text.slice(at, end));
    at = end;
    if (at >= text.length) break;
    if (text[at] === ',') {
      at++;
      if (at >= text.length || text[at] === '\n' || text[at] === '\r') {
        row.push('');
      } else {
        continue;
      }
      if (at >= text.length) break;
    }
    if (text[at] === '\r' && text[at + 1] === '\n') at++;
    at++;
    line++;
    endRow();
  }
  if (row.length > 0) endRow();
  const header = rows.shift() ?? [];
  lines.shift();
  rows.forEach((fields, i) => {
    if (fields.length !== header.length) {
      throw new HPformerError(
        'ERR_HPFORMER_INPUT',
        `${file} line ${lines[i]}: expected ${header.length} fields as in the header, got ${fields.length}`,
      );
    }
  });
  const columns = new Map<string, number>();
  for (const [i, name] of header.entries()) {
    if (name !== '' && columns.has(name)) {
      throw new HPformerError('ERR_HPFORMER_INPUT', `${file}: expected distinct columns, got ${describe(name)} twice`);
    }
    columns.set(name, i);
  }
  return { rows, lines, columns };
}

/** Writes one field, quoted only where it must be. */
export function csvField(text: string): string {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
