import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { HPformerError } from '../../../errors';
import { fileError } from '../../../files';
import { describe } from '../../../tensor/shape';
import { type EpisodeInput, ReadingList, type TimedReading } from '../arrays';
import { readValue } from '../discretize';
import type { EpisodeReadOptions } from '../episodes';
import { categoryIndex, healthVariables, variableByName } from '../schema';
import { FhirStay, fhirResource } from './fhir';
import { convertUnit } from './units';

/**
 * Every line of a text file with its number, in constant memory.
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export async function* textLines(file: string): AsyncGenerator<[line: string, number: number]> {
  const stream = createReadStream(file, 'utf8');
  // The lines end at a failure and the stream remembers it; without a listener it would end the process.
  stream.on('error', () => undefined);
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
  let number = 0;
  try {
    for await (const line of lines) yield [number === 0 ? line.replace(/^\ufeff/, '') : line, ++number];
    if (stream.errored) throw stream.errored;
  } catch (cause) {
    if (cause instanceof HPformerError) throw cause;
    throw fileError(file, 'read', cause);
  } finally {
    lines.close();
    stream.destroy();
  }
}

/** Why a reading is left out: the field that is wrong (none: the reading itself), and what is wrong with it. */
type Complaint = [column: 'hours' | 'variable' | 'value' | 'unit' | undefined, reason: string];

/** One reading of a JSON line, or why it is left out. */
function readingOf(value: unknown): TimedReading | Complaint {
  const row = value as { hours?: unknown; variable?: unknown; value?: unknown; unit?: unknown };
  if (typeof row !== 'object' || row === null) return [undefined, 'reading is no object'];
  if (typeof row.hours !== 'number' || !Number.isFinite(row.hours)) return ['hours', 'hours is no number'];
  const variable = typeof row.variable === 'string' ? variableByName.get(row.variable) : undefined;
  if (variable === undefined) return ['variable', 'variable is not known'];
  if (typeof row.value !== 'number' && typeof row.value !== 'string') return ['value', 'value is no number or text'];
  const raw = readValue(variable, categoryIndex[variable] ? categoryText(variable, row.value) : String(row.value));
  if (raw === undefined) return ['value', categoryIndex[variable] ? 'category is not known' : 'value is not a number'];
  if (categoryIndex[variable]) return { hours: row.hours, variable, value: raw };
  if (row.unit !== undefined && typeof row.unit !== 'string') return ['unit', 'unit is no text'];
  // A number without a unit is in the variable's own one, as in episode files: nothing is guessed here.
  const converted = row.unit === undefined || row.unit === '' ? raw : convertUnit(variable, raw, row.unit);
  return converted === undefined ? ['unit', 'unit is not known'] : { hours: row.hours, variable, value: converted };
}

/** Category texts are exact; a number stands for the text that names it (15 for "15", 0 for "0.0"). */
function categoryText(variable: number, value: string | number): string {
  if (typeof value === 'string') return value;
  return healthVariables[variable]!.categories!.find((text) => Number(text) === value) ?? String(value);
}

/**
 * JSON lines of readings, each line one reading `{"stay": "a1", "hours": 1.5, "variable": "Heart Rate", "value": 80, "unit": "/min"}`
 * (lines of one stay together), or one stay `{"stay": "a1", "readings": [{"hours": …}, …]}`; or FHIR resources, one a line. Readings
 * that cannot be used are an error naming the line, or counted when lenient.
 */
export async function* readJsonLines(file: string, options: EpisodeReadOptions): AsyncGenerator<EpisodeInput> {
  let stay: string | undefined;
  let readings: TimedReading[] = [];
  let fhir: FhirStay | undefined;
  const seen = new Set<string>();
  const close = (): EpisodeInput => {
    const kept = readings;
    const id = stay!;
    readings = [];
    return { id, file, open: () => new ReadingList(kept, `${file} stay ${id}`) };
  };
  const leaveOut = ([column, reason]: [string | undefined, string], line: number, value: unknown): void => {
    if (!options.lenient) {
      const place = `${file} line ${line}${column === undefined ? '' : `, column "${column}"`}`;
      const got = column === undefined ? value : (value as Record<string, unknown> | null)?.[column];
      throw new HPformerError('ERR_HPFORMER_INPUT', `${place}: ${reason}, got ${describe(got)}`);
    }
    options.drops.add(reason, `${file} line ${line}`);
  };
  for await (const [text, line] of textLines(file)) {
    if (text.trim() === '') continue;
    let json: Record<string, unknown>;
    try {
      json = JSON.parse(text) as Record<string, unknown>;
    } catch {
      leaveOut([undefined, 'line is no JSON'], line, text);
      continue;
    }
    if (fhirResource(json)) {
      fhir ??= new FhirStay(file, options.drops);
      fhir.add(json, `${file} line ${line}`);
      continue;
    }
    const id = json?.stay;
    if (typeof id !== 'string' && typeof id !== 'number') {
      leaveOut(['stay', 'stay is no text or number'], line, json);
      continue;
    }
    // Numbers that JSON takes for one another would be two patients in one stay.
    if (typeof id === 'number' && Math.abs(id) > Number.MAX_SAFE_INTEGER) {
      leaveOut(['stay', 'stay is a number above 2^53 - 1, which is not exact: write it as text'], line, json);
      continue;
    }
    if (stay !== String(id)) {
      if (stay !== undefined) {
        yield close();
        seen.add(stay);
      }
      stay = String(id);
      if (seen.has(stay)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${file} line ${line}: expected the lines of a stay together, got stay ${describe(stay)} again`,
        );
      }
    }
    const list = Array.isArray(json.readings) ? json.readings : [json];
    for (const entry of list) {
      const reading = readingOf(entry);
      if (Array.isArray(reading)) leaveOut(reading, line, entry);
      else readings.push(reading);
    }
  }
  if (stay !== undefined) yield close();
  if (fhir) yield* fhir.episodes();
}
