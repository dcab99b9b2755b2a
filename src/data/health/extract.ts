import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { cleanValue } from './clean';
import { type CsvTable, csvField, parseCsv } from './csv';
import { diagnosisCodes } from './diagnoses';
import { type Compat, checkCompat } from './labels';
import { pythonFloat, pythonRepr } from './python';
import { healthVariables } from './schema';
import { type ListedEpisode, listFiles } from './tasks';

/** The raw tables of one subject, as the MIMIC-IV path breaks them up. */
export interface SubjectTables {
  /** CSV: `subject_id, hadm_id, stay_id, charttime, itemid, value, valueuom`. */
  events: string;
  /** CSV: `subject_id, hadm_id, stay_id, …, intime, outtime, los, …, deathtime, ethnicity, gender, anchor_age, …, mortality`. */
  stays: string;
  /** CSV: `…, icd_code, …, stay_id`. */
  diagnoses: string;
  /** Default `corrected`. */
  compat?: Compat | undefined;
}

/** What {@link extractSubject} gives. */
export interface ExtractedSubject {
  /**
   * File text by name: `episode1.csv`, `episode1_timeseries.csv` … and the list files `in_hospital_mortality_listfile.csv`,
   * `decompensation_listfile.csv`, `length_of_stay_listfile.csv`.
   */
  files: Record<string, string>;
  /** Events left out, counted by reason. */
  dropped: Record<string, number>;
}

// What pandas 1.5 reads as a missing value ("None" is none of them).
const missing = new Set(
  ',#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,n/a,nan,null'.split(','),
);
const genders: Record<string, number> = { F: 1, M: 2, OTHER: 3, '': 0 };
const ethnicities: Record<string, number> = {
  ASIAN: 1,
  BLACK: 2,
  'CARIBBEAN ISLAND': 2,
  HISPANIC: 3,
  'SOUTH AMERICAN': 3,
  WHITE: 4,
  'MIDDLE EASTERN': 4,
  PORTUGUESE: 4,
};
/** Order of the variable columns in episode files: by name, the order of the schema. */
const variableOfItem = new Map(
  healthVariables.flatMap((variable, v) => variable.items.map((item) => [item, v] as const)),
);

/** Days of a stay: more than a lifetime in hospital. */
const longestStay = 10_000;

class Table {
  readonly rows: CsvTable['rows'];
  readonly lines: CsvTable['lines'];
  private readonly columns: CsvTable['columns'];

  constructor(
    text: string,
    readonly file: string,
    needed: readonly string[],
  ) {
    const table = parseCsv(text, file);
    this.rows = table.rows;
    this.lines = table.lines;
    // The validation step of the reference lower-cases column names; MIMIC-III files are in capitals.
    this.columns = new Map([...table.columns].map(([name, i]) => [name.trim().toLowerCase(), i]));
    for (const name of needed) {
      if (!this.columns.has(name)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${file} line 1: expected a column "${name}", got ${[...this.columns.keys()].join(', ') || 'nothing'}`,
        );
      }
    }
  }

  /** The field, or undefined where it is missing. */
  get(row: number, column: string): string | undefined {
    const text = this.rows[row]![this.columns.get(column)!]!;
    return missing.has(text) ? undefined : text;
  }

  wrong(row: number, column: string, expected: string): HPformerError {
    const text = this.rows[row]![this.columns.get(column)!];
    return new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${this.file} line ${this.lines[row]}, column "${column}": expected ${expected}, got ${describe(text)}`,
    );
  }

  integer(row: number, column: string): number {
    const value = pythonFloat(this.get(row, column) ?? '');
    if (value === undefined || !Number.isSafeInteger(value)) throw this.wrong(row, column, 'an integer');
    return value;
  }
}

/** Milliseconds of a date and time without zone; undefined for anything else. */
export function parseTime(text: string): number | undefined {
  const m = /^(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2})(\.\d+)?)?)?$/.exec(text);
  if (!m) return undefined;
  const [year, month, day, hour, minute, second] = m.slice(1, 7).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const time = Date.UTC(year, month - 1, day, hour, minute, second);
  const back = new Date(time);
  if (back.getUTCMonth() !== month - 1 || back.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59) {
    return undefined;
  }
  return time + (m[7] ? Number(m[7]) * 1000 : 0);
}

interface Stay {
  row: number;
  subject: string;
  id: number;
  admission: string;
  intime: number;
  outtime: number;
  deathtime: number | undefined;
}

interface Event {
  time: number;
  stay: number;
  variable: number;
  value: number | string;
}

function readStays(table: Table): Stay[] {
  const stays = table.rows.map((_, row): Stay => {
    const at = (column: string): number | undefined => {
      const text = table.get(row, column);
      const time = text === undefined ? undefined : parseTime(text);
      if (time === undefined && (text !== undefined || column !== 'deathtime')) {
        throw table.wrong(row, column, 'a time YYYY-MM-DD HH:MM:SS');
      }
      return time;
    };
    const admission = table.get(row, 'hadm_id');
    if (admission === undefined) throw table.wrong(row, 'hadm_id', 'an admission');
    return {
      row,
      subject: table.get(row, 'subject_id') ?? '',
      id: table.integer(row, 'stay_id'),
      admission,
      intime: at('intime')!,
      outtime: at('outtime')!,
      deathtime: at('deathtime'),
    };
  });
  for (const name of ['id', 'admission'] as const) {
    const seen = new Set<string | number>();
    for (const stay of stays) {
      if (seen.has(stay[name])) {
        const column = name === 'id' ? 'stay_id' : 'hadm_id';
        throw table.wrong(stay.row, column, 'each stay and each admission once');
      }
      seen.add(stay[name]);
    }
  }
  return stays.sort((a, b) => a.intime - b.intime || a.outtime - b.outtime);
}

interface RawEvent {
  row: number;
  stay: number;
  value: string;
}

/** The validation step: events of listed admissions, with the stay of the admission. */
function validEvents(table: Table, stays: readonly Stay[], drop: (reason: string) => void): RawEvent[] {
  const byAdmission = new Map(stays.map((stay) => [stay.admission, stay]));
  const events: RawEvent[] = [];
  for (let row = 0; row < table.rows.length; row++) {
    const admission = table.get(row, 'hadm_id');
    const stay = admission === undefined ? undefined : byAdmission.get(admission);
    if (!stay) {
      drop(admission === undefined ? 'no admission' : 'admission not listed');
      continue;
    }
    const given = table.get(row, 'stay_id');
    if (given !== undefined && Number(given) !== stay.id) {
      drop('stay of another admission');
      continue;
    }
    const value = table.get(row, 'value');
    if (value === undefined) drop('no value');
    else events.push({ row, stay: stay.id, value });
  }
  return events;
}

/**
 * Whether pandas holds the value column as numbers: where every value left by the validation is one. The published output depends on
 * it, since such a column is written with decimal points and sorted by size.
 */
function holdsNumbers(events: readonly RawEvent[]): boolean {
  return events.every(({ value }) => !value.includes('_') && pythonFloat(value) !== undefined);
}

function readEvents(table: Table, stays: readonly Stay[], published: boolean, drop: (reason: string) => void): Event[] {
  const raw = validEvents(table, stays, drop);
  const numbers = published && holdsNumbers(raw);
  const events: Event[] = [];
  for (const { row, stay, value: text } of raw) {
    const item = table.integer(row, 'itemid');
    const variable = variableOfItem.get(item);
    if (variable === undefined) {
      drop('item of no variable');
      continue;
    }
    const time = parseTime(table.get(row, 'charttime') ?? '');
    if (time === undefined) {
      if (published) throw table.wrong(row, 'charttime', 'a time YYYY-MM-DD HH:MM:SS');
      drop('no time');
      continue;
    }
    const unit = table.get(row, 'valueuom') ?? '';
    const cleaned = cleanValue({ variable, item, value: numbers ? pythonFloat(text)! : text, unit }, published);
    if ('drop' in cleaned) {
      const { name } = healthVariables[variable]!;
      // The reference ends its run where a value of these variables is no number; text in laboratory values it drops.
      if (published && cleaned.drop === 'not a number' && stopsThere.has(name)) {
        throw table.wrong(row, 'value', `a number for ${name}`);
      }
      drop(`${name}: ${cleaned.drop}`);
      continue;
    }
    events.push({ time, stay, variable, value: cleaned.value });
  }
  return events;
}

const stopsThere = new Set([
  'Diastolic blood pressure',
  'Systolic blood pressure',
  'Fraction inspired oxygen',
  'Temperature',
  'Weight',
  'Height',
]);

/** Numbers before texts, texts in code point order: how pandas sorts a mixed column. */
function compareMixed(a: number | string, b: number | string): number {
  if (typeof a === 'number') return typeof b === 'number' ? a - b : -1;
  if (typeof b === 'number') return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Number variables by size, whatever their text; the rest as the reference. */
function compareCorrected(a: number | string, b: number | string): number {
  const x = typeof a === 'number' ? a : pythonFloat(a);
  const y = typeof b === 'number' ? b : pythonFloat(b);
  return x !== undefined && y !== undefined ? x - y : compareMixed(a, b);
}

/** One row a distinct time and stay; of several values of a variable at one time the last in sorting order. */
interface Moment {
  time: number;
  stay: number;
  values: (number | string | undefined)[];
}

function toMoments(events: Event[], published: boolean): Moment[] {
  const compare = published ? compareMixed : compareCorrected;
  const sorted = [...events].sort((a, b) => a.time - b.time || a.stay - b.stay);
  const moments: Moment[] = [];
  let shared: Moment['values'] = [];
  for (const event of sorted) {
    const last = moments.at(-1);
    if (last?.time !== event.time) shared = new Array(healthVariables.length).fill(undefined);
    if (last?.time !== event.time || last.stay !== event.stay) {
      moments.push({ time: event.time, stay: event.stay, values: shared });
    }
    const known = shared[event.variable];
    if (known === undefined || compare(event.value, known) >= 0) shared[event.variable] = event.value;
  }
  return moments;
}

function cell(value: number | string | undefined): string {
  if (value === undefined) return '';
  return typeof value === 'number' ? pythonRepr(value) : csvField(value);
}

/** Writes a column of a pandas table: whole numbers stay whole unless a value is missing or has a fraction. */
function columnWriter(table: Table, column: string): (row: number) => string {
  const texts = table.rows.map((_, row) => table.get(row, column));
  const numbers = texts.map((text) => (text === undefined ? Number.NaN : pythonFloat(text)));
  if (numbers.includes(undefined)) return (row) => texts[row] ?? '';
  const whole = texts.every((text) => text !== undefined && /^[+-]?\d+$/.test(text));
  return (row) => {
    const value = numbers[row]!;
    if (Number.isNaN(value)) return '';
    return whole ? String(value) : pythonRepr(value);
  };
}

function ethnicityCode(text: string): number {
  const group = text.replaceAll(' OR ', '/').split(' - ')[0]!.split('/')[0]!;
  return ethnicities[group] ?? 0;
}

/** Codes of the diagnosis columns by stay. Published: a table whose codes are all digits is read as numbers and matches nothing. */
function readDiagnoses(table: Table, published: boolean): Map<number, Set<string>> {
  const out = new Map<number, Set<string>>();
  let digitsOnly = true;
  for (let row = 0; row < table.rows.length; row++) {
    const stay = table.integer(row, 'stay_id');
    const code = table.get(row, 'icd_code') ?? '';
    const codes = out.get(stay) ?? new Set();
    codes.add(code);
    out.set(stay, codes);
    if (code !== '' && pythonFloat(code) === undefined) digitsOnly = false;
  }
  if (published && digitsOnly) for (const codes of out.values()) codes.clear();
  return out;
}

/**
 * Raw events of one subject to episode files and list files, as the published MIMIC-IV scripts make them (validation of events, item
 * map, cleaning, one value a time and variable, one file a stay; then the lines of three tasks, shuffled with Python's generator seeded
 * 49297). With compat `published` the text is byte for byte the reference's, its defects included.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` naming table, line and column for malformed tables; with compat `published` also where the
 * reference stops.
 */
export function extractSubject(tables: SubjectTables): ExtractedSubject {
  if (typeof tables !== 'object' || tables === null) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `extractSubject: expected { events, stays, diagnoses }, got ${describe(tables)}`,
    );
  }
  const published = checkCompat('extractSubject', tables.compat) === 'published';
  const stayTable = new Table(tables.stays, 'stays', [
    'subject_id',
    'hadm_id',
    'stay_id',
    'intime',
    'outtime',
    'los',
    'deathtime',
    'ethnicity',
    'gender',
    'anchor_age',
    'mortality',
  ]);
  const stays = readStays(stayTable);
  const diagnoses = readDiagnoses(new Table(tables.diagnoses, 'diagnoses', ['icd_code', 'stay_id']), published);
  const dropped: Record<string, number> = {};
  const drop = (reason: string): void => {
    dropped[reason] = (dropped[reason] ?? 0) + 1;
  };
  const needed = ['hadm_id', 'stay_id', 'charttime', 'itemid', 'value', 'valueuom'];
  const events = readEvents(new Table(tables.events, 'events', needed), stays, published, drop);
  const moments = toMoments(events, published);
  const write = {
    age: columnWriter(stayTable, 'anchor_age'),
    los: columnWriter(stayTable, 'los'),
    mortality: columnWriter(stayTable, 'mortality'),
  };
  const files: Record<string, string> = {};
  const listed: ListedEpisode[] = [];
  const head = `Icustay,Ethnicity,Gender,Age,Height,Weight,Length of Stay,Mortality,${diagnosisCodes.map((c) => `Diagnosis ${c}`).join(',')}`;
  const variables = healthVariables.map((variable) => variable.name);
  stays.forEach((stay, i) => {
    const rows = moments.filter((m) => m.stay === stay.id || (m.time >= stay.intime && m.time <= stay.outtime));
    if (rows.length === 0) return;
    const firstOf = (name: string): string => {
      const v = variables.indexOf(name);
      return cell(rows.find((m) => m.values[v] !== undefined)?.values[v]);
    };
    const codes = diagnoses.get(stay.id);
    const los = write.los(stay.row);
    const mortality = write.mortality(stay.row);
    const lines = [head];
    // As in the reference a stay without any diagnosis keeps an empty episode file and enters no task; corrected, it stays.
    if (codes || !published) {
      const gender = stayTable.get(stay.row, 'gender') ?? '';
      const ethnicity = stayTable.get(stay.row, 'ethnicity');
      if (ethnicity === undefined && published) throw stayTable.wrong(stay.row, 'ethnicity', 'a text');
      lines.push(
        [
          stay.id,
          ethnicityCode(ethnicity ?? ''),
          genders[gender] ?? genders.OTHER,
          write.age(stay.row),
          firstOf('Height'),
          firstOf('Weight'),
          los,
          mortality,
          ...diagnosisCodes.map((code) => (codes?.has(code) ? 1 : 0)),
        ].join(','),
      );
    }
    const hours = rows.map((m) => (m.time - stay.intime) / 1000 / 60 / 60);
    const name = `episode${i + 1}`;
    files[`${name}.csv`] = `${lines.join('\n')}\n`;
    files[`${name}_timeseries.csv`] = [
      `Hours,${variables.join(',')}`,
      ...rows.map((m, r) => `${pythonRepr(hours[r]!)},${m.values.map(cell).join(',')}`),
      '',
    ].join('\n');
    if (lines.length > 1 && los !== '') {
      // The lists have a line for every hour: a length that no stay has would fill the memory with them.
      if (Number(los) > longestStay) throw stayTable.wrong(stay.row, 'los', `at most ${longestStay} days`);
      listed.push({
        file: `${stay.subject}_${name}_timeseries.csv`,
        hours,
        stayHours: 24 * Number(los),
        died: Number(mortality) !== 0,
        livedHours: stay.deathtime === undefined ? undefined : (stay.deathtime - stay.intime) / 1000 / 3600,
      });
    }
  });
  Object.assign(files, listFiles(listed));
  return { files: withGoldenNames(files), dropped };
}

/** The same texts also answer to the names of the golden folder (`expected_…`), without appearing twice in listings. */
function withGoldenNames(files: Record<string, string>): Record<string, string> {
  for (const name of Object.keys(files)) {
    Object.defineProperty(files, `expected_${name}`, { value: files[name], enumerable: false });
  }
  return files;
}
