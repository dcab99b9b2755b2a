/**
 * The 17 variables of the published health benchmark in their order, with the one-hot order of their categories, the value that stands
 * in before a first reading, and the MIMIC items they come from. The file spelling ("Glascow") is kept: it is part of the format.
 */
import { checkType } from '../check';

/** One variable of the benchmark: its name, unit, categories and what stands in for it. */
export interface HealthVariable {
  /** Column name of episode files. */
  readonly name: string;
  /** Category texts in one-hot order; absent for numbers. */
  readonly categories?: readonly string[];
  /** Text of the value before the first reading. */
  readonly fill: string;
  /** Unit of the numbers that the model expects (UCUM); absent for categories. */
  readonly unit?: string;
  /** Item numbers of MIMIC-IV (MetaVision charts and laboratory) and MIMIC-III (CareVue). */
  readonly items: readonly number[];
}

const eye = [
  'To Pain',
  '3 To speech',
  '1 No Response',
  '4 Spontaneously',
  'None',
  'To Speech',
  'Spontaneously',
  '2 To pain',
];
const motor = [
  '1 No Response',
  '3 Abnorm flexion',
  'Abnormal extension',
  'No response',
  '4 Flex-withdraws',
  'Localizes Pain',
  'Flex-withdraws',
  'Obeys Commands',
  'Abnormal Flexion',
  '6 Obeys Commands',
  '5 Localizes Pain',
  '2 Abnorm extensn',
];
const verbal = [
  '1 No Response',
  'No Response',
  'Confused',
  'Inappropriate Words',
  'Oriented',
  'No Response-ETT',
  '5 Oriented',
  'Incomprehensible sounds',
  '1.0 ET/Trach',
  '4 Confused',
  '2 Incomp sounds',
  '3 Inapprop words',
];

/** The variables, 0…16. */
export const healthVariables: readonly HealthVariable[] = [
  { name: 'Capillary refill rate', categories: ['0.0', '1.0'], fill: '0.0', items: [115, 3348, 8377] },
  {
    name: 'Diastolic blood pressure',
    fill: '59.0',
    unit: 'mm[Hg]',
    items: [220051, 220180, 224643, 225310, 8368, 8440, 8441, 8502, 8503, 8504, 8506, 8507, 8555],
  },
  { name: 'Fraction inspired oxygen', fill: '0.21', unit: '1', items: [223835, 189, 727, 3420, 3422] },
  { name: 'Glascow coma scale eye opening', categories: eye, fill: '4 Spontaneously', items: [220739, 184] },
  { name: 'Glascow coma scale motor response', categories: motor, fill: '6 Obeys Commands', items: [223901, 454] },
  {
    name: 'Glascow coma scale total',
    categories: ['11', '10', '13', '12', '15', '14', '3', '5', '4', '7', '6', '9', '8'],
    fill: '15',
    items: [198],
  },
  { name: 'Glascow coma scale verbal response', categories: verbal, fill: '5 Oriented', items: [223900, 723] },
  {
    name: 'Glucose',
    fill: '128.0',
    unit: 'mg/dL',
    items: [50809, 50931, 51478, 220621, 225664, 226537, 807, 811, 1529, 3745],
  },
  { name: 'Heart Rate', fill: '86', unit: '/min', items: [220045, 211] },
  { name: 'Height', fill: '170.0', unit: 'cm', items: [226707, 226730, 1394] },
  {
    name: 'Mean blood pressure',
    fill: '77.0',
    unit: 'mm[Hg]',
    items: [220052, 220181, 224322, 225312, 52, 224, 456, 3312, 3314, 3316, 3320, 3322, 6702],
  },
  { name: 'Oxygen saturation', fill: '98.0', unit: '%', items: [50817, 220227, 220277, 646, 834, 8498] },
  {
    name: 'Respiratory rate',
    fill: '19',
    unit: '/min',
    items: [220210, 224422, 224689, 224690, 614, 615, 618, 651, 3603],
  },
  {
    name: 'Systolic blood pressure',
    fill: '118.0',
    unit: 'mm[Hg]',
    items: [220050, 220179, 224167, 225309, 227243, 51, 442, 455, 3313, 3315, 3317, 3321, 3323, 6701],
  },
  {
    name: 'Temperature',
    fill: '36.6',
    unit: 'Cel',
    items: [223761, 223762, 676, 677, 678, 679, 3654, 3655],
  },
  { name: 'Weight', fill: '81.0', unit: 'kg', items: [224639, 226512, 226531, 763, 3580, 3581, 3582, 3693] },
  {
    name: 'pH',
    fill: '7.4',
    unit: '[pH]',
    items: [50820, 50831, 51094, 51491, 220274, 223830, 780, 860, 1126, 1673, 3839, 4202, 4753],
  },
];

/** Item labels that the unit rules of the extraction look at (Height, Weight, Temperature); the others never matter. */
export const itemLabels: ReadonlyMap<number, string> = new Map([
  [226707, 'Height'],
  [226730, 'Height (cm)'],
  [1394, 'Height Inches'],
  [224639, 'Daily Weight'],
  [226512, 'Admission Weight (Kg)'],
  [226531, 'Admission Weight (lbs.)'],
  [763, 'Daily Weight'],
  [3580, 'Present Weight  (kg)'],
  [3581, 'Present Weight  (lb)'],
  [3582, 'Present Weight  (oz)'],
  [3693, 'Weight Kg'],
  [223761, 'Temperature Fahrenheit'],
  [223762, 'Temperature Celsius'],
  [676, 'Temperature C'],
  [677, 'Temperature C (calc)'],
  [678, 'Temperature F'],
  [679, 'Temperature F (calc)'],
  [3654, 'Temp Rectal [F]'],
  [3655, 'Temp Skin [C]'],
]);

/** Version of this schema, written into bundles: a change of order, categories or fills raises it. */
export const healthSchemaVersion = 1;

/** Number of variables. */
export const variableCount = healthVariables.length;

/** First column of each variable; the last entry is the number of value columns (59). */
export const firstColumn: Readonly<Int32Array> = (() => {
  const first = new Int32Array(variableCount + 1);
  healthVariables.forEach((variable, v) => {
    first[v + 1] = first[v]! + (variable.categories?.length ?? 1);
  });
  return first;
})();

/** Value columns without masks: 59. */
export const valueColumns: number = firstColumn[variableCount]!;

/** Variable number by file name. */
export const variableByName: ReadonlyMap<string, number> = new Map(healthVariables.map((v, i) => [v.name, i]));

/** Position of a category text, by variable; undefined for number variables. */
export const categoryIndex: readonly (ReadonlyMap<string, number> | undefined)[] = healthVariables.map((variable) =>
  variable.categories ? new Map(variable.categories.map((text, i) => [text, i])) : undefined,
);

/** Fill value by variable: the number, or the category's position. */
export const fillValues: readonly number[] = healthVariables.map(
  (variable, v) => categoryIndex[v]?.get(variable.fill) ?? Number(variable.fill),
);

/** Names of the 76 feature columns (59 without masks): `variable`, `variable->category`, `mask->variable`. */
export function columnNames(masks = true): string[] {
  checkType('columnNames: masks', masks, 'boolean');
  const names = healthVariables.flatMap((variable) =>
    variable.categories ? variable.categories.map((text) => `${variable.name}->${text}`) : [variable.name],
  );
  return masks ? [...names, ...healthVariables.map((variable) => `mask->${variable.name}`)] : names;
}

/** First line of every episode file. */
export const episodeHeader = ['Hours', ...healthVariables.map((variable) => variable.name)].join(',');

/** Writes one value of a variable into the bin that begins at `row`: a number, or the index of a category as one-hot columns. */
export function writeValue(values: Float64Array, row: number, variable: number, value: number): void {
  const begin = row + firstColumn[variable]!;
  if (categoryIndex[variable]) {
    values.fill(0, begin, row + firstColumn[variable + 1]!);
    values[begin + value] = 1;
  } else {
    values[begin] = value;
  }
}
