import { checkInteger } from '../../model/options';
import { decimalBytes } from './decimal';
import { misread, type ReadingSource } from './discretize';
import { healthVariables, variableByName, variableCount } from './schema';

const comma = 0x2c;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** Category texts of each variable as bytes, by position; undefined for numbers. */
const categoryBytes: readonly (readonly Buffer[] | undefined)[] = healthVariables.map(({ categories }) =>
  categories?.map((text) => Buffer.from(text, 'latin1')),
);

function sameBytes(bytes: Uint8Array, begin: number, text: Uint8Array): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[begin + i] !== text[i]) return false;
  return true;
}

/** Position of a category's text; undefined when it is none. */
function categoryAt(texts: readonly Buffer[], bytes: Uint8Array, begin: number, end: number): number | undefined {
  const length = end - begin;
  for (let c = 0; c < texts.length; c++) {
    const text = texts[c]!;
    if (text.length === length && sameBytes(bytes, begin, text)) return c;
  }
  return undefined;
}

/** The header that the last file had, and the variable of each column after the time: files of one run share it. */
let knownHeader: Uint8Array = new Uint8Array(0);
let knownVariables: Uint8Array = new Uint8Array(0);

/** Reads the first line, `length` bytes without its end; undefined for a header that {@link EpisodeText} must judge. */
function headerVariables(bytes: Uint8Array, length: number): Uint8Array | undefined {
  if (length === knownHeader.length && sameBytes(bytes, 0, knownHeader)) return knownVariables;
  const [first, ...names] = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1').split(',');
  const variables = names.map((name) => variableByName.get(name) ?? variableCount);
  if (first !== 'Hours' || variables.includes(variableCount)) return undefined;
  knownHeader = bytes.slice(0, length);
  knownVariables = Uint8Array.from(variables);
  return knownVariables;
}

// Working memory of one parse, grown as needed and copied from at its end.
let hours = new Float64Array(64);
let begins = new Int32Array(65);
let variables = new Uint8Array(1024);
let values = new Float64Array(1024);

/** Readings of an episode file, parsed from its bytes. */
class ByteEpisode implements ReadingSource {
  constructor(
    readonly hours: Float64Array,
    private readonly begins: Int32Array,
    private readonly variables: Uint8Array,
    private readonly values: Float64Array,
    private readonly file: string,
  ) {}

  place(row: number): string {
    checkInteger('row', row, 0, this.hours.length - 1);
    return `${this.file} line ${row + 2}`;
  }

  read(row: number, write: (variable: number, value: number) => void): number {
    if (this.hours[row] === undefined || typeof write !== 'function') throw misread(this, row, write);
    const end = this.begins[row + 1]!;
    for (let i = this.begins[row]!; i < end; i++) write(this.variables[i]!, this.values[i]!);
    return 0;
  }
}

/**
 * Parses an episode file of the plain kind (known columns, decimal numbers, exact category texts, `\n` or `\r\n`), which nearly all
 * are, several times faster than through strings. It never reports an error.
 *
 * @param own false: the readings lie in working memory and are gone with the next call.
 * @returns undefined for a file with anything else in it, be it wrong or only unusual: {@link EpisodeText} reads that, or says what is wrong.
 */
export function parseEpisodeBytes(bytes: Uint8Array, file: string, own = true): ReadingSource | undefined {
  const size = bytes.length;
  const end = bytes.indexOf(lineFeed);
  if (end < 0) return undefined;
  const columns = headerVariables(bytes, bytes[end - 1] === carriageReturn ? end - 1 : end);
  if (!columns) return undefined;
  const count = columns.length;
  let at = end + 1;
  let rows = 0;
  let readings = 0;
  while (at < size) {
    if (rows === hours.length) {
      hours = grown(hours, new Float64Array(2 * rows));
      begins = grown(begins, new Int32Array(2 * rows + 1));
    }
    if (readings + count > values.length) {
      variables = grown(variables, new Uint8Array(2 * variables.length + count));
      values = grown(values, new Float64Array(2 * values.length + count));
    }
    begins[rows] = readings;
    // Field −1 is the time.
    for (let field = -1; field < count; field++) {
      let byte = at < size ? bytes[at]! : lineFeed;
      if (byte !== comma && byte !== lineFeed) {
        const texts = field < 0 ? undefined : categoryBytes[columns[field]!];
        const begin = at;
        while (byte !== comma && byte !== lineFeed) byte = ++at < size ? bytes[at]! : lineFeed;
        const stop = byte === lineFeed && bytes[at - 1] === carriageReturn ? at - 1 : at;
        if (field < 0 || stop > begin) {
          const value = texts ? categoryAt(texts, bytes, begin, stop) : decimalBytes(bytes, begin, stop);
          if (value === undefined) return undefined;
          if (field < 0) hours[rows] = value;
          else {
            variables[readings] = columns[field]!;
            values[readings++] = value;
          }
        }
      } else if (field < 0) return undefined;
      if ((byte === lineFeed) !== (field === count - 1)) return undefined;
      at++;
    }
    rows++;
  }
  if (rows === 0) return undefined;
  begins[rows] = readings;
  if (!own) return new ByteEpisode(hours.subarray(0, rows), begins, variables, values, file);
  return new ByteEpisode(
    hours.slice(0, rows),
    begins.slice(0, rows + 1),
    variables.slice(0, readings),
    values.slice(0, readings),
    file,
  );
}

function grown<T extends Float64Array | Int32Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
