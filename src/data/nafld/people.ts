import { HPformerError } from '../../errors';
import { badField, type CsvRow, findTable, parseInteger, parseNumber, readCsv } from '../csv';
import { bodyMeasures, events, tests } from './recipe';

/** One reading on or before the index date; `test` indexes `tests`. */
export interface Reading {
  day: number;
  test: number;
  value: number;
}

/** Outcome of a person; only evaluation reads it. */
export interface Outcome {
  /** Days from the index date to death or last follow-up. */
  followUp: number;
  died: boolean;
}

/** What is known of one person. */
export interface Person {
  id: number;
  age: number;
  male: 0 | 1;
  /** In the order of `bodyMeasures`; NaN when missing. */
  body: number[];
  /** Text of `case.id`, or `id` and the person's id where that is empty: the unit of splitting and resampling. */
  matchedSet: string;
  /** Usable rows: day ≤ 0, repeats included, in file order. */
  readings: Reading[];
  /** Day of the first diagnosis of each of `events`, Infinity for none. May lie after the index date. */
  firstDiagnosis: number[];
  /** Undefined unless outcomes were asked for. */
  outcome?: Outcome;
}

/**
 * Groups of rows by ascending id. The files are sorted by id, so one pass suffices; a file that is not (a quick first pass over the
 * ids tells) is sorted in memory, rows of one id staying in file order.
 */
class Grouped {
  private readonly batches: AsyncIterator<CsvRow[]>;
  private batch: CsvRow[] = [];
  private at = 0;

  private constructor(
    readonly file: string,
    /** Rows of the file. */
    readonly rows: number,
    source: AsyncIterable<CsvRow[]>,
  ) {
    this.batches = source[Symbol.asyncIterator]();
  }

  static async open(file: string, required: readonly string[], optional: readonly string[] = []): Promise<Grouped> {
    let previous = Number.NEGATIVE_INFINITY;
    let sorted = true;
    let count = 0;
    for await (const rows of readCsv(file, ['id'])) {
      count += rows.length;
      for (const { row, fields } of rows) {
        const id = parseInteger(file, row, 'id', fields[0]);
        if (id < previous) sorted = false;
        previous = id;
      }
    }
    const source = readCsv(file, required, optional);
    if (sorted) return new Grouped(file, count, source);
    const all: CsvRow[] = [];
    for await (const rows of source) all.push(...rows);
    all.sort((a, b) => Number(a.fields[0]) - Number(b.fields[0]));
    return new Grouped(
      file,
      count,
      (async function* () {
        yield all;
      })(),
    );
  }

  /** The next row without taking it, or undefined at the end. */
  async peek(): Promise<CsvRow | undefined> {
    while (this.at >= this.batch.length) {
      const next = await this.batches.next();
      if (next.done) return undefined;
      this.batch = next.value;
      this.at = 0;
    }
    return this.batch[this.at];
  }

  /** All rows of the person; rows of smaller ids (people that people.csv does not list) are passed over. */
  async take(id: number): Promise<CsvRow[]> {
    const rows: CsvRow[] = [];
    for (;;) {
      const row = this.at < this.batch.length ? this.batch[this.at] : await this.peek();
      if (row === undefined) return rows;
      const own = Number(row.fields[0]);
      if (own > id) return rows;
      if (own === id) rows.push(row);
      this.at++;
    }
  }

  async close(): Promise<void> {
    await this.batches.return?.();
  }
}

function indexOf(
  names: readonly string[],
  file: string,
  row: number,
  column: string,
  text: string | undefined,
): number {
  const index = names.indexOf(text ?? '');
  if (index < 0) throw badField(file, row, column, `one of ${names.join(', ')}`, text);
  return index;
}

function parseReading(file: string, { row, fields }: CsvRow): Reading {
  const [, days, test, value] = fields;
  return {
    day: parseInteger(file, row, 'days', days),
    test: indexOf(tests, file, row, 'test', test),
    value: parseNumber(file, row, 'value', value),
  };
}

function parseFlag(file: string, row: number, column: string, text: string | undefined): 0 | 1 {
  if (text !== '0' && text !== '1') throw badField(file, row, column, '0 or 1', text);
  return text === '1' ? 1 : 0;
}

const personColumns = ['id', 'age', 'male', ...bodyMeasures];
const outcomeColumns = ['futime', 'status'];

/**
 * Everyone in a folder with people, readings and diagnoses (`.csv.gz` or `.csv`), by ascending id, streaming: three files are read
 * side by side and one person is held at a time.
 *
 * @param options.progress told how many of how many rows of the people file are done, before each person.
 * @param options.outcomes read `futime` and `status` too; without it these columns are never looked at and may be absent.
 * @throws HPformerError `ERR_HPFORMER_FILE` for a missing or malformed file, `ERR_HPFORMER_INPUT` for a value (row and column named).
 */
export async function* readPeople(
  folder: string,
  options: { outcomes: boolean; progress?: ((done: number, total: number) => void) | undefined },
): AsyncGenerator<Person> {
  const peopleFile = findTable(folder, 'people');
  const readingsFile = findTable(folder, 'readings');
  const diagnosesFile = findTable(folder, 'diagnoses');
  const required = options.outcomes ? [...personColumns, ...outcomeColumns] : personColumns;
  const open: Grouped[] = [];
  try {
    const people = await Grouped.open(peopleFile, required, ['case.id']);
    open.push(people);
    const readings = await Grouped.open(readingsFile, ['id', 'days', 'test', 'value']);
    open.push(readings);
    const diagnoses = await Grouped.open(diagnosesFile, ['id', 'days', 'event']);
    open.push(diagnoses);
    for (let row = await people.peek(), done = 0; row !== undefined; row = await people.peek()) {
      options.progress?.(done++, people.rows);
      const id = parseInteger(peopleFile, row.row, 'id', row.fields[0]);
      const same = await people.take(id);
      if (same.length > 1) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `people: row ${same[1]!.row}, column id: expected each person once, got ${id} again (row ${same[0]!.row})`,
        );
      }
      const person = parsePerson(peopleFile, row, options.outcomes);
      for (const line of await readings.take(id)) {
        const reading = parseReading(readingsFile, line);
        if (reading.day <= 0) person.readings.push(reading);
      }
      for (const { row: number, fields } of await diagnoses.take(id)) {
        const day = parseInteger(diagnosesFile, number, 'days', fields[1]);
        const event = indexOf(events, diagnosesFile, number, 'event', fields[2]);
        person.firstDiagnosis[event] = Math.min(day, person.firstDiagnosis[event]!);
      }
      yield person;
    }
  } finally {
    for (const table of open) await table.close();
  }
}

function parsePerson(file: string, { row, fields }: CsvRow, outcomes: boolean): Person {
  const id = parseInteger(file, row, 'id', fields[0]);
  const caseId = fields[outcomes ? personColumns.length + outcomeColumns.length : personColumns.length];
  const person: Person = {
    id,
    age: parseNumber(file, row, 'age', fields[1]),
    male: parseFlag(file, row, 'male', fields[2]),
    body: bodyMeasures.map((name, i) => {
      const text = fields[3 + i];
      return text === undefined || text === '' ? Number.NaN : parseNumber(file, row, name, text);
    }),
    matchedSet: caseId ? caseId : `id${id}`,
    readings: [],
    firstDiagnosis: events.map(() => Number.POSITIVE_INFINITY),
  };
  if (outcomes) {
    person.outcome = {
      followUp: parseInteger(file, row, 'futime', fields[personColumns.length]),
      died: parseFlag(file, row, 'status', fields[personColumns.length + 1]) === 1,
    };
  }
  return person;
}
