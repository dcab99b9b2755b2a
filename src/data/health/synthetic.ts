import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import { checkFields } from '../check';
import { SeededRandom } from '../metrics';
import { episodeHeader, healthVariables } from './schema';

/** Chance of a reading in an hour, by variable: the mask means of the published MIMIC-III statistics (hourly bins, 48 h). */
const hourlyRates = [
  0.00334392, 0.904333, 0.0625722, 0.310137, 0.30879, 0.182442, 0.309074, 0.25918, 0.925081, 0.00394817, 0.900614,
  0.893579, 0.911381, 0.904491, 0.326241, 0.0310193, 0.131091,
];

/** Mean, spread between patients, spread between readings, decimals. Means as published; spreads are ours (the published ones hold outliers). */
const numbers: Readonly<Record<string, readonly [mean: number, patient: number, reading: number, decimals: number]>> = {
  'Diastolic blood pressure': [61.2, 8, 7, 0],
  'Fraction inspired oxygen': [0.45, 0.1, 0.05, 2],
  Glucose: [137.5, 30, 22, 0],
  'Heart Rate': [86.3, 13, 7, 0],
  Height: [169.8, 9, 0, 0],
  'Mean blood pressure': [78.8, 9, 7, 0],
  'Oxygen saturation': [97, 1.4, 1.3, 0],
  'Respiratory rate': [19.3, 3.4, 3.6, 0],
  'Systolic blood pressure': [120.3, 15, 11, 0],
  Temperature: [36.93, 0.45, 0.35, 1],
  Weight: [81.9, 19, 0.6, 1],
  pH: [7.37, 0.05, 0.03, 2],
};

/** Shares of category values, in the order of the schema: the one-hot means of the published statistics. */
const shares: Readonly<Record<string, readonly number[]>> = {
  'Capillary refill rate': [0.997498, 0.00250192],
  'Glascow coma scale eye opening': [
    0.0231683, 0.0960736, 0.0775653, 0.396644, 0.0495602, 0.0761332, 0.245888, 0.0349675,
  ],
  'Glascow coma scale motor response': [
    0.0416907, 0.00306231, 0.00181276, 0.0281891, 0.0338637, 0.0433959, 0.0240329, 0.29466, 0.00202786, 0.452362,
    0.0724256, 0.00247787,
  ],
  'Glascow coma scale total': [
    0.0373746, 0.0515937, 0.0142247, 0.00573688, 0.712386, 0.041327, 0.0369642, 0.00343451, 0.00399487, 0.0246556,
    0.0188791, 0.0235376, 0.025891,
  ],
  'Glascow coma scale verbal response': [
    0.00988034, 0.0133233, 0.0367208, 0.00256985, 0.208957, 0.125511, 0.331938, 0.00715058, 0.207859, 0.0431469,
    0.00950533, 0.00343732,
  ],
};

/** A made-up stay. */
export interface SyntheticEpisode {
  /** `100001_episode1`. */
  id: string;
  /** Text of its time-series file. */
  text: string;
  died: 0 | 1;
}

/**
 * A made-up intensive-care stay: the same text for the same seed and number on every platform. Readings come as often as published
 * hourly rates say, values from published means and category shares; a hidden severity shifts vital signs and the chance of death
 * (about 13 %), so that models and metrics have something to find. No patient data; for tests and speed, not for accuracy claims.
 *
 * @param number 0, 1, 2 …: which stay.
 * @param options `hours`, default 48; `seed`, default 1.
 */
export function synthesizeEpisode(
  number: number,
  options: { hours?: number | undefined; seed?: number | undefined } = {},
): SyntheticEpisode {
  checkFields('synthesizeEpisode: options', options, {});
  const { hours = 48, seed = 1 } = options;
  if (!Number.isInteger(number) || number < 0 || !Number.isInteger(seed)) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `synthesizeEpisode: expected integers, got ${describe(number)}, ${describe(seed)}`,
    );
  }
  if (!(typeof hours === 'number' && hours >= 1 && hours <= 10000)) {
    throw new HPformerError('ERR_HPFORMER_RANGE', `synthesizeEpisode: hours: expected 1…10000, got ${describe(hours)}`);
  }
  const random = new SeededRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  const uniform = (): number => (random.next() + 0.5) / 4294967296;
  // Sum of uniforms: close enough to normal, and made of exact operations only, so every platform agrees.
  const normal = (): number => uniform() + uniform() + uniform() + uniform() + uniform() + uniform() - 3;
  const severity = Math.max(0, normal() + 0.3);
  const died = uniform() < Math.min(0.9, 0.015 + 0.13 * severity * severity) ? 1 : 0;
  const patient = healthVariables.map(() => normal() * Math.SQRT2);
  const state = healthVariables.map(() => -1);
  const pieces = [episodeHeader];
  for (let hour = 0; hour < hours; hour++) {
    const fields = new Array<string>(healthVariables.length).fill('');
    let any = false;
    healthVariables.forEach(({ name, categories }, v) => {
      if (uniform() >= hourlyRates[v]!) return;
      any = true;
      const worse = severity * (0.4 + (0.6 * hour) / hours);
      if (categories) {
        // Nurses repeat a finding more often than not.
        if (state[v] === -1 || uniform() < 0.25) state[v] = draw(shares[name]!, uniform(), worse);
        fields[v] = categories[state[v]!]!;
      } else {
        const [mean, between, within, decimals] = numbers[name]!;
        const value = mean + between * patient[v]! + within * normal() * Math.SQRT2 + drift(name, worse);
        fields[v] = Math.max(name === 'Fraction inspired oxygen' ? 0.21 : 1, value).toFixed(decimals);
      }
    });
    if (any) pieces.push(`${hour + Math.floor(uniform() * 3600 + 1) / 3600},${fields.join(',')}`);
  }
  return { id: `${100000 + number}_episode1`, text: `${pieces.join('\n')}\n`, died };
}

/** A category by its share; severity favours rare ones. */
function draw(weights: readonly number[], u: number, severity: number): number {
  const flat = Math.min(0.6, 0.12 * severity);
  let left = u;
  for (let c = 0; c < weights.length; c++) {
    left -= weights[c]! * (1 - flat) + flat / weights.length;
    if (left < 0) return c;
  }
  return weights.indexOf(Math.max(...weights));
}

function drift(name: string, severity: number): number {
  switch (name) {
    case 'Heart Rate':
      return 9 * severity;
    case 'Systolic blood pressure':
      return -9 * severity;
    case 'Mean blood pressure':
    case 'Diastolic blood pressure':
      return -5 * severity;
    case 'Respiratory rate':
      return 2.5 * severity;
    case 'Oxygen saturation':
      return -1.1 * severity;
    case 'pH':
      return -0.03 * severity;
    case 'Glucose':
      return 8 * severity;
    default:
      return 0;
  }
}
