import { HPformerError } from '../../../errors';
import { readJson } from '../../../files';
import { describe } from '../../../tensor/shape';
import { type DropReport, type EpisodeInput, ReadingList, type TimedReading } from '../arrays';
import type { EpisodeReadOptions } from '../episodes';
import { categoryIndex, healthVariables, variableByName } from '../schema';
import { convertUnit, plausible } from './units';

const loincSystem = 'http://loinc.org';
const v = (name: string): number => variableByName.get(name)!;

/** LOINC codes by variable. The blood-pressure panels hold their numbers in components. */
export const loincVariables: ReadonlyMap<string, number> = new Map([
  ['44963-7', v('Capillary refill rate')],
  ['8462-4', v('Diastolic blood pressure')],
  ['8453-3', v('Diastolic blood pressure')],
  ['76213-8', v('Diastolic blood pressure')],
  ['76535-4', v('Diastolic blood pressure')],
  ['3150-6', v('Fraction inspired oxygen')],
  ['3151-4', v('Fraction inspired oxygen')],
  ['19994-3', v('Fraction inspired oxygen')],
  ['19996-8', v('Fraction inspired oxygen')],
  ['9267-6', v('Glascow coma scale eye opening')],
  ['9268-4', v('Glascow coma scale motor response')],
  ['9269-2', v('Glascow coma scale total')],
  ['9270-0', v('Glascow coma scale verbal response')],
  ['2339-0', v('Glucose')],
  ['2345-7', v('Glucose')],
  ['2340-8', v('Glucose')],
  ['41653-7', v('Glucose')],
  ['14749-6', v('Glucose')],
  ['15074-8', v('Glucose')],
  ['32016-8', v('Glucose')],
  ['8867-4', v('Heart Rate')],
  ['8889-8', v('Heart Rate')],
  ['76282-3', v('Heart Rate')],
  ['8302-2', v('Height')],
  ['3137-7', v('Height')],
  ['8478-0', v('Mean blood pressure')],
  ['76214-6', v('Mean blood pressure')],
  ['76536-2', v('Mean blood pressure')],
  ['2708-6', v('Oxygen saturation')],
  ['59408-5', v('Oxygen saturation')],
  ['20564-1', v('Oxygen saturation')],
  ['9279-1', v('Respiratory rate')],
  ['76270-8', v('Respiratory rate')],
  ['8480-6', v('Systolic blood pressure')],
  ['8459-0', v('Systolic blood pressure')],
  ['76215-3', v('Systolic blood pressure')],
  ['76534-7', v('Systolic blood pressure')],
  ['8310-5', v('Temperature')],
  ['8331-1', v('Temperature')],
  ['8332-9', v('Temperature')],
  ['29463-7', v('Weight')],
  ['3141-9', v('Weight')],
  ['2744-1', v('pH')],
  ['2745-8', v('pH')],
  ['2746-6', v('pH')],
  ['11558-4', v('pH')],
]);

/** Answers of the coma scale by score, as the number, and in the model's category texts. */
const comaScores: Readonly<Record<string, readonly string[]>> = {
  'Glascow coma scale eye opening': ['1 No Response', '2 To pain', '3 To speech', '4 Spontaneously'],
  'Glascow coma scale motor response': [
    '1 No Response',
    '2 Abnorm extensn',
    '3 Abnorm flexion',
    '4 Flex-withdraws',
    '5 Localizes Pain',
    '6 Obeys Commands',
  ],
  'Glascow coma scale verbal response': [
    '1 No Response',
    '2 Incomp sounds',
    '3 Inapprop words',
    '4 Confused',
    '5 Oriented',
  ],
};
/** LOINC answer codes of the coma scale (answer lists LL355-9, LL357-5, LL356-7), from score 1 up. */
const comaAnswers: Readonly<Record<string, readonly string[]>> = {
  'Glascow coma scale eye opening': ['LA6553-7', 'LA6554-5', 'LA6555-2', 'LA6556-0'],
  'Glascow coma scale motor response': ['LA6562-8', 'LA6563-6', 'LA6564-4', 'LA6565-1', 'LA6566-9', 'LA6567-7'],
  'Glascow coma scale verbal response': ['LA6557-8', 'LA6558-6', 'LA6559-4', 'LA6560-2', 'LA6561-0'],
};
/** The extension by which FHIR gives the score of a coded answer. */
const ordinalValue = 'http://hl7.org/fhir/StructureDefinition/ordinalValue';

/** Units of a capillary refill time, in seconds. */
const refillSeconds: ReadonlyMap<unknown, number> = new Map([
  ['s', 1],
  ['sec', 1],
  ['seconds', 1],
  ['ms', 0.001],
]);

/** Bundles inside a Bundle: searches and batches nest one or two. */
const deepest = 32;

/** Statuses whose values stand. Preliminary, registered, cancelled and erroneous observations are dropped. */
const finalStatuses = new Set(['final', 'amended', 'corrected']);

interface Coding {
  system?: unknown;
  code?: unknown;
  display?: unknown;
  extension?: { url?: unknown; valueDecimal?: unknown }[];
}
interface Quantity {
  value?: unknown;
  code?: unknown;
  unit?: unknown;
  comparator?: unknown;
}
interface Component {
  code?: { coding?: Coding[] };
  valueQuantity?: Quantity;
  valueCodeableConcept?: { coding?: Coding[]; text?: unknown };
  valueInteger?: unknown;
  valueString?: unknown;
  component?: Component[];
}
interface Observation extends Component {
  resourceType: 'Observation';
  id?: unknown;
  status?: unknown;
  subject?: { reference?: unknown };
  encounter?: { reference?: unknown };
  effectiveDateTime?: unknown;
  effectiveInstant?: unknown;
  effectivePeriod?: { start?: unknown; end?: unknown };
}

/** True for an object that names a FHIR resource type. */
export function fhirResource(json: unknown): json is { resourceType: string } {
  return typeof (json as { resourceType?: unknown } | null)?.resourceType === 'string';
}

/**
 * Milliseconds of a FHIR instant or dateTime with at least minutes and a zone; coarser times cannot be placed in an hour, and days that
 * their month does not have (Date.parse takes them for days of the next) in no day.
 */
function fhirTime(text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined;
  const date = /^(\d{4})-(\d{2})-(\d{2})T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/.exec(text);
  if (!date || Number(date[3]) > new Date(Date.UTC(Number(date[1]), Number(date[2]), 0)).getUTCDate()) return undefined;
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

interface Stay {
  begin: number | undefined;
  /** By time and variable, in the order they came. */
  readings: Map<string, { time: number; variable: number; value: number; code: string }>;
  ids: Set<string>;
}

/** Collects observations by encounter (by subject where none is named) and turns them into stays. */
export class FhirStay {
  private readonly stays = new Map<string, Stay>();
  private readonly begins = new Map<string, number>();

  constructor(
    private readonly file: string,
    private readonly drops: DropReport,
  ) {}

  /**
   * Adds an Observation, an Encounter (its start is hour 0) or a Bundle of them; other resources are counted.
   * @throws HPformerError `ERR_HPFORMER_INPUT` for a Bundle whose entries are no list, or that is inside more than 32 others.
   */
  add(json: unknown, place: string, depth = 0): void {
    const resource = json as { resourceType?: string; entry?: { resource?: unknown }[] };
    if (resource?.resourceType === 'Bundle') {
      if (resource.entry !== undefined && !Array.isArray(resource.entry)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${place}: expected the entries of a Bundle, got ${describe(resource.entry)}`,
        );
      }
      if (depth > deepest) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `${place}: expected Bundles at most ${deepest} deep, got one in ${depth} others`,
        );
      }
      (resource.entry ?? []).forEach((entry, i) => {
        this.add(entry?.resource, `${place} entry ${i + 1}`, depth + 1);
      });
      return;
    }
    if (resource?.resourceType === 'Encounter') {
      const { id, period } = json as { id?: unknown; period?: { start?: unknown } };
      const begin = fhirTime(period?.start);
      if (typeof id === 'string' && begin !== undefined) this.begins.set(`Encounter/${id}`, begin);
      else this.drops.add('encounter without id or start', place);
      return;
    }
    if (resource?.resourceType !== 'Observation') {
      this.drops.add(`resource is no Observation: ${describe(resource?.resourceType)}`, place);
      return;
    }
    this.observation(json as Observation, place);
  }

  private observation(observation: Observation, place: string): void {
    const { status } = observation;
    if (typeof status !== 'string' || !finalStatuses.has(status)) {
      this.drops.add(`status ${describe(status)}`, place);
      return;
    }
    const key = observation.encounter?.reference ?? observation.subject?.reference;
    if (typeof key !== 'string') {
      this.drops.add('no encounter and no subject', place);
      return;
    }
    const time =
      fhirTime(observation.effectiveDateTime) ??
      fhirTime(observation.effectiveInstant) ??
      fhirTime(observation.effectivePeriod?.end) ??
      fhirTime(observation.effectivePeriod?.start);
    if (time === undefined) {
      this.drops.add('no effective time with hour and zone', place);
      return;
    }
    const stay = this.stays.get(key) ?? { begin: undefined, readings: new Map(), ids: new Set() };
    this.stays.set(key, stay);
    if (typeof observation.id === 'string') {
      if (stay.ids.has(observation.id)) {
        this.drops.add('observation repeats an id', place);
        return;
      }
      stay.ids.add(observation.id);
    }
    const components = objectsOf(observation.component);
    for (const part of [observation, ...components]) {
      // A panel's own code says nothing by itself: its numbers are in the components.
      if (part === observation && components.length > 0 && !hasValue(observation)) continue;
      this.reading(part, time, stay, place);
    }
  }

  private reading(part: Component, time: number, stay: Stay, place: string): void {
    const codes = objectsOf(part.code?.coding).filter((c) => c.system === loincSystem && typeof c.code === 'string');
    const found = new Set(codes.flatMap((c) => loincVariables.get(c.code as string) ?? []));
    if (found.size !== 1) {
      const named = codes.map((c) => c.code).join(', ') || 'none';
      this.drops.add(
        found.size === 0 ? `LOINC code not used by the model: ${named}` : `LOINC codes contradict: ${named}`,
        place,
      );
      return;
    }
    const [variable] = found as unknown as [number];
    const value = this.value(part, variable, place);
    if (value === undefined) return;
    const code = codes[0]!.code as string;
    const key = `${time} ${variable}`;
    const twin = stay.readings.get(key);
    if (twin) {
      // Two codes for one measurement, or a re-sent one: the last stands, as in the discretiser.
      this.drops.add(
        twin.value === value
          ? 'reading repeats variable, time and value'
          : `two values of ${healthVariables[variable]!.name} at one time, the later kept`,
        place,
      );
      twin.value = value;
      twin.code = code;
      return;
    }
    stay.readings.set(key, { time, variable, value, code });
  }

  private value(part: Component, variable: number, place: string): number | undefined {
    const { name, categories } = healthVariables[variable]!;
    const quantity = part.valueQuantity;
    if (!categories) {
      const number = quantity?.value ?? part.valueInteger;
      if (typeof number !== 'number' || !Number.isFinite(number)) {
        this.drops.add(`${name}: no number`, place);
        return undefined;
      }
      if (quantity?.comparator !== undefined) {
        this.drops.add(`${name}: value with comparator ${describe(quantity.comparator)}`, place);
        return undefined;
      }
      const unit = quantity?.code ?? quantity?.unit;
      const converted = convertUnit(variable, number, typeof unit === 'string' ? unit : undefined);
      if (converted === undefined) {
        this.drops.add(`${name}: unit ${describe(unit)} is not known`, place);
        return undefined;
      }
      if (!plausible(variable, converted)) {
        this.drops.add(`${name}: implausible value`, place);
        return undefined;
      }
      return converted;
    }
    const concept = part.valueCodeableConcept;
    const codings = objectsOf(concept?.coding);
    const texts = [concept?.text, part.valueString, ...codings.map((c) => c.display)].filter(
      (t): t is string => typeof t === 'string',
    );
    for (const text of texts) {
      const position = categoryIndex[variable]!.get(text);
      if (position !== undefined) return position;
    }
    if (name === 'Capillary refill rate' && quantity) return this.refill(quantity, place);
    const ordinal = codings.flatMap((c) => objectsOf(c.extension)).find((e) => e.url === ordinalValue)?.valueDecimal;
    const answers = comaAnswers[name] ?? [];
    const answer = codings
      .filter((c) => c.system === loincSystem)
      .map((c) => answers.indexOf(c.code as string) + 1)
      .find((position) => position > 0);
    const score = quantity?.value ?? part.valueInteger ?? ordinal ?? answer;
    if (typeof score === 'number') {
      const text = comaScores[name]?.[score - 1] ?? String(score);
      const position = categoryIndex[variable]!.get(text);
      if (position !== undefined) return position;
    }
    this.drops.add(`${name}: category is not known`, place);
    return undefined;
  }

  /** Capillary refill time: abnormal above 3 seconds. */
  private refill({ value, code, unit, comparator }: Quantity, place: string): number | undefined {
    const name = 'Capillary refill rate';
    const given = code ?? unit;
    const factor = given === undefined ? 1 : refillSeconds.get(given);
    if (typeof value !== 'number' || !Number.isFinite(value)) this.drops.add(`${name}: no number`, place);
    else if (factor === undefined) this.drops.add(`${name}: unit ${describe(given)} is not known`, place);
    else if (comparator !== undefined) this.drops.add(`${name}: value with comparator ${describe(comparator)}`, place);
    else return categoryIndex[v(name)]!.get(value * factor > 3 ? '1.0' : '0.0');
    return undefined;
  }

  /** The stays collected; hour 0 is the encounter's start, or the first reading's time where no Encounter came. */
  *episodes(): Generator<EpisodeInput> {
    for (const [key, stay] of this.stays) {
      if (stay.readings.size === 0) continue;
      let first = Number.POSITIVE_INFINITY;
      for (const { time } of stay.readings.values()) if (time < first) first = time;
      const begin = this.begins.get(key) ?? first;
      const readings: TimedReading[] = Array.from(stay.readings.values(), ({ time, variable, value }) => ({
        hours: (time - begin) / 3_600_000,
        variable,
        value,
      }));
      const place = `${this.file} ${key}`;
      yield { id: key.replace(/^.*\//, ''), file: this.file, open: () => new ReadingList(readings, place) };
    }
  }
}

/** A FHIR R4 Bundle (or one Observation) in a JSON file; NDJSON goes through the JSON-lines reader. */
export async function* readFhir(file: string, options: EpisodeReadOptions): AsyncGenerator<EpisodeInput> {
  const json = await readJson(file);
  if (!fhirResource(json)) {
    throw new HPformerError(
      'ERR_HPFORMER_INPUT',
      `${file}: expected a FHIR Bundle or Observation, got ${describe(json)}`,
    );
  }
  const stays = new FhirStay(file, options.drops);
  stays.add(json, file);
  yield* stays.episodes();
}

/** The objects of a list that came in a file; what is no list has none. */
function objectsOf<T extends object>(list: readonly T[] | undefined): T[] {
  return Array.isArray(list) ? list.filter((item) => typeof item === 'object' && item !== null) : [];
}

function hasValue(part: Component): boolean {
  return (
    part.valueQuantity !== undefined ||
    part.valueCodeableConcept !== undefined ||
    part.valueInteger !== undefined ||
    part.valueString !== undefined
  );
}
