import { pythonFloat, roundHalfEven } from './python';
import { healthVariables, itemLabels, variableByName } from './schema';

/** What a raw value became: a number, text that passes unchanged, or why it was dropped. */
export type Cleaned = { value: number | string } | { drop: string };

/** A raw event of one item. */
export interface RawValue {
  variable: number;
  item: number;
  /** Text as in the table, or a number where the whole column held numbers (published behaviour). */
  value: string | number;
  unit: string;
}

const labNumber = /^(\d+(\.\d*)?|\.\d+)$/;
const v = (name: string): number => variableByName.get(name)!;
const capillary = v('Capillary refill rate');
const diastolic = v('Diastolic blood pressure');
const systolic = v('Systolic blood pressure');
const oxygen = v('Fraction inspired oxygen');
const saturation = v('Oxygen saturation');
const glucose = v('Glucose');
const acidity = v('pH');
const temperature = v('Temperature');
const weight = v('Weight');
const height = v('Height');
const comaTotal = v('Glascow coma scale total');

const unreadable = 'not a number';

function number(value: string | number): number | undefined {
  return typeof value === 'number' ? value : pythonFloat(value);
}

function pressure(value: string | number, part: 1 | 2): Cleaned {
  const text = String(value);
  if (text.includes('/')) {
    const pair = /^(\d+)\/(\d+)$/.exec(text);
    return pair ? { value: Number(pair[part]) } : { drop: unreadable };
  }
  return numeric(number(value));
}

function numeric(value: number | undefined): Cleaned {
  if (value === undefined) return { drop: unreadable };
  return Number.isNaN(value) ? { drop: 'missing' } : { value };
}

function laboratory(value: string | number): Cleaned {
  if (typeof value === 'string' && !labNumber.test(value)) return { drop: unreadable };
  return numeric(number(value));
}

function isFahrenheit(unit: string, label: string): boolean {
  if (/f/i.test(unit)) return true;
  if (/c/i.test(unit)) return false;
  return /\bF\b|Fahrenheit/.test(label);
}

/**
 * The cleaning rules of the published MIMIC pipeline for one value. `published` keeps the reference's defects (the oxygen fraction
 * divided by 100 always, Fahrenheit recognised only from 79 up, other variables unchecked); corrected repairs them.
 */
export function cleanValue({ variable, item, value, unit }: RawValue, published: boolean): Cleaned {
  const label = itemLabels.get(item) ?? '';
  const said = `${unit} ${label}`.toLowerCase();
  switch (variable) {
    case capillary:
      if (value === 'Normal <3 secs' || value === 'Brisk') return { value: 0 };
      if (value === 'Abnormal >3 secs' || value === 'Delayed') return { value: 1 };
      return { drop: 'no capillary refill text of the benchmark' };
    case diastolic:
      return pressure(value, 2);
    case systolic:
      return pressure(value, 1);
    case oxygen: {
      const cleaned = numeric(number(value));
      if ('drop' in cleaned || unit.toLowerCase().includes('torr')) return cleaned;
      const x = cleaned.value as number;
      return { value: published || x > 1 ? x / 100 : x };
    }
    case saturation: {
      const cleaned = laboratory(value);
      if ('drop' in cleaned) return cleaned;
      const x = cleaned.value as number;
      return { value: x <= 1 ? x * 100 : x };
    }
    case glucose:
    case acidity:
      return laboratory(value);
    case temperature: {
      const cleaned = numeric(number(value));
      if ('drop' in cleaned) return cleaned;
      const x = cleaned.value as number;
      const convert = x >= 79 || (!published && isFahrenheit(unit, label));
      return { value: convert ? ((x - 32) * 5) / 9 : x };
    }
    case weight: {
      const cleaned = numeric(number(value));
      if ('drop' in cleaned) return cleaned;
      let x = cleaned.value as number;
      const ounces = said.includes('oz');
      if (ounces) x /= 16;
      return { value: ounces || said.includes('lb') ? x * 0.453592 : x };
    }
    case height: {
      const cleaned = numeric(number(value));
      if ('drop' in cleaned) return cleaned;
      const x = cleaned.value as number;
      return { value: said.includes('in') ? roundHalfEven(x * 2.54) : x };
    }
    default:
      return published ? { value } : unchecked(variable, value);
  }
}

/** Variables that the reference passes as text: corrected, numbers must be readable and categories known. */
function unchecked(variable: number, value: string | number): Cleaned {
  const { categories } = healthVariables[variable]!;
  if (!categories) {
    const x = number(value);
    if (x === undefined) return { drop: unreadable };
    return Number.isFinite(x) ? { value } : { drop: 'missing' };
  }
  if (categories.includes(String(value))) return { value: String(value) };
  if (variable === comaTotal) {
    const x = number(value);
    if (x !== undefined && categories.includes(String(x))) return { value: String(x) };
  }
  return { drop: 'unknown category' };
}
