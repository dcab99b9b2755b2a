import { HPformerError } from '../../../errors';
import { checkType, wrongType } from '../../check';
import { type HealthVariable, healthVariables, variableByName } from '../schema';

/** Conversions to each variable's unit, by UCUM code (case sensitive) or a spelling that systems use instead. */
const fahrenheit = (v: number): number => ((v - 32) * 5) / 9;
const times =
  (factor: number) =>
  (v: number): number =>
    v * factor;
const same = times(1);

const pressure: Record<string, (v: number) => number> = {
  'mm[Hg]': same,
  mmHg: same,
  kPa: times(7.500616827041697),
  Pa: times(0.007500616827041697),
  hPa: times(0.7500616827041697),
  mbar: times(0.7500616827041697),
  'cm[H2O]': times(0.735559240069),
};
const rate: Record<string, (v: number) => number> = {
  '/min': same,
  '{beats}/min': same,
  '{breaths}/min': same,
  'beats/minute': same,
  'breaths/minute': same,
  'beats/min': same,
  'breaths/min': same,
  bpm: same,
  'insp/min': same,
  '/s': times(60),
  Hz: times(60),
};

const conversions: Record<string, Record<string, (v: number) => number>> = {
  'Diastolic blood pressure': pressure,
  'Systolic blood pressure': pressure,
  'Mean blood pressure': pressure,
  'Heart Rate': rate,
  'Respiratory rate': rate,
  // A share: 40 % and 0.4 are the same.
  'Fraction inspired oxygen': { '%': times(0.01), '1': same, '{fraction}': same, '{ratio}': same },
  'Oxygen saturation': { '%': same, '1': times(100), '{fraction}': times(100) },
  // 18.0156 g/mol: 1 mmol/L = 18.0156 mg/dL.
  Glucose: { 'mg/dL': same, 'mg/dl': same, 'mmol/L': times(18.0156), 'mmol/l': times(18.0156), 'g/L': times(100) },
  Height: {
    cm: same,
    m: times(100),
    mm: times(0.1),
    '[in_i]': times(2.54),
    '[in_us]': times(2.54),
    in: times(2.54),
    '[ft_i]': times(30.48),
  },
  Temperature: {
    Cel: same,
    C: same,
    '°C': same,
    degC: same,
    '[degF]': fahrenheit,
    F: fahrenheit,
    '°F': fahrenheit,
    degF: fahrenheit,
    K: (v) => v - 273.15,
  },
  Weight: {
    kg: same,
    g: times(0.001),
    '[lb_av]': times(0.45359237),
    lb: times(0.45359237),
    lbs: times(0.45359237),
    '[stone_av]': times(0.45359237 * 14),
    '[oz_av]': times(0.45359237 / 16),
    oz: times(0.45359237 / 16),
  },
  pH: { '[pH]': same, pH: same, '1': same },
};

/** The variable of a number, as {@link healthVariables} has it. */
function variableAt(where: string, variable: number): HealthVariable {
  const found = typeof variable === 'number' ? healthVariables[variable] : undefined;
  if (found) return found;
  if (typeof variable !== 'number') {
    throw wrongType(`${where}: variable`, 'the number of a variable, its position in healthVariables', variable);
  }
  const most = healthVariables.length - 1;
  throw new HPformerError('ERR_HPFORMER_RANGE', `${where}: variable: expected a number 0…${most}, got ${variable}`);
}

/**
 * Units that a variable is understood in.
 * @param variable its position in `healthVariables`.
 * @throws HPformerError `ERR_HPFORMER_TYPE` when it is no number, `ERR_HPFORMER_RANGE` for one that is no variable's.
 */
export function knownUnits(variable: number): string[] {
  return Object.keys(conversions[variableAt('knownUnits', variable).name] ?? {});
}

/**
 * A number in the variable's own unit.
 *
 * @param unit UCUM code or common spelling; undefined or empty: the variable's own unit (a fraction above 1 of inspired oxygen is read
 * as per cent, a saturation up to 1 as a fraction).
 * @param variable its position in `healthVariables`.
 * @returns undefined for a unit that is not understood.
 * @throws HPformerError `ERR_HPFORMER_TYPE` for arguments of other types, `ERR_HPFORMER_RANGE` for a number that is no variable's.
 */
export function convertUnit(variable: number, value: number, unit: string | undefined): number | undefined {
  const { name } = variableAt('convertUnit', variable);
  if (typeof value !== 'number') throw wrongType('convertUnit: value', 'a number', value);
  checkType('convertUnit: unit', unit, 'string?');
  if (unit === undefined || unit === '') {
    if (variable === variableByName.get('Fraction inspired oxygen')) return value > 1 ? value / 100 : value;
    if (variable === variableByName.get('Oxygen saturation')) return value <= 1 ? value * 100 : value;
    return value;
  }
  const table = conversions[name] ?? {};
  return Object.hasOwn(table, unit) ? table[unit]!(value) : undefined;
}

/** Widest values that can be true in a living adult; outside, a reading is dropped as implausible. */
const limits: Record<string, [number, number]> = {
  'Diastolic blood pressure': [0, 375],
  'Systolic blood pressure': [0, 375],
  'Mean blood pressure': [0, 375],
  'Fraction inspired oxygen': [0.15, 1.01],
  Glucose: [0, 2200],
  'Heart Rate': [0, 390],
  Height: [30, 275],
  'Oxygen saturation': [0, 100.5],
  'Respiratory rate': [0, 330],
  Temperature: [14, 47],
  Weight: [1, 680],
  pH: [6, 8.6],
};

/** False for a value that no unit error leaves possible. */
export function plausible(variable: number, value: number): boolean {
  const range = limits[healthVariables[variable]!.name];
  return range === undefined || (value >= range[0] && value <= range[1]);
}
