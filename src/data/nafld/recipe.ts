import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';

/** Laboratory tests in channel order. */
export const tests = ['hdl', 'sbp', 'fib4', 'smoke'] as const;
/** Diagnoses in channel order. */
export const events = [
  'nafld',
  'htn',
  'dyslipidemia',
  'diabetes',
  'MI',
  'ang/isc',
  'afib',
  'heart failure',
  'stroke',
  'cardiac arrest',
] as const;
/** Body measures in channel order. */
export const bodyMeasures = ['weight', 'height'] as const;

/** Mean and scale of a channel, and where its raw value is cut off first. */
export interface Scaling {
  mean: number;
  scale: number;
  low: number;
  high: number;
  log: boolean;
}

/** The feature recipe of the NAFLD models: everything numeric that turns CSV values into channels. */
export interface NafldRecipe {
  steps: number;
  width: number;
  horizonDays: number;
  minimumRows: number;
  split: { prefix: string; trainBelow: number; validBelow: number };
  /** By channel name; only channels that are scaled. */
  scaling: Record<ScaledChannel, Scaling>;
  /** Channel names in order. */
  channels: string[];
}

export type ScaledChannel =
  | (typeof tests)[number]
  | (typeof bodyMeasures)[number]
  | 'log_gap'
  | 'log_count'
  | 'log_years_before'
  | 'age';

interface Channel {
  name: string;
  source: string;
  transform: 'identity' | 'log' | 'log1p' | 'flag';
  clipped: boolean;
}

function channel(name: string, source: string, transform: Channel['transform'] = 'flag', clipped = false): Channel {
  return { name, source, transform, clipped };
}

/** Every channel in order. A features.json that says otherwise was made for other code. */
const channelTable: readonly Channel[] = [
  ...tests.map((t) => channel(t, `readings:${t}:last`, t === 'fib4' ? 'log' : 'identity', true)),
  ...tests.map((t) => channel(`${t}_measured`, `readings:${t}:today`)),
  ...tests.map((t) => channel(`${t}_known`, `readings:${t}:ever`)),
  channel('log_gap', 'days since the previous step', 'log1p'),
  channel('log_count', 'values seen so far', 'log1p'),
  channel('log_years_before', '-day/365.25', 'log1p'),
  channel('age', 'people:age', 'identity'),
  channel('male', 'people:male'),
  ...bodyMeasures.flatMap((b) => [channel(b, `people:${b}`, 'identity', true), channel(`${b}_known`, `people:${b}`)]),
  ...events.map((e) => channel(`dx_${e}`, `diagnoses:${e}`)),
];

function wrong(where: string, expected: string, got: unknown): HPformerError {
  return new HPformerError('ERR_HPFORMER_INPUT', `features.${where}: expected ${expected}, got ${describe(got)}`);
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function finite(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong(where, 'a number', value);
  return value;
}

function positiveInteger(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
    throw wrong(where, 'a positive integer', value);
  return value;
}

/**
 * Checks a parsed features.json against the channels that this code computes: count, order, source and transform of each.
 *
 * @throws HPformerError `ERR_HPFORMER_INPUT` that names the first field that differs.
 */
export function parseRecipe(json: unknown): NafldRecipe {
  const channels = field(json, 'channels');
  if (!Array.isArray(channels) || channels.length !== channelTable.length) {
    const got = Array.isArray(channels) ? `${channels.length} channels` : channels;
    throw wrong('channels', `${channelTable.length} channels`, got);
  }
  const width = positiveInteger(field(json, 'width'), 'width');
  if (width !== channels.length) throw wrong('width', String(channels.length), width);
  const indexDay = field(json, 'index_day');
  if (indexDay !== 0) throw wrong('index_day', '0', indexDay);
  const scaling = {} as Record<ScaledChannel, Scaling>;
  for (const [i, want] of channelTable.entries()) {
    const got = channels[i];
    for (const [key, expected] of [
      ['index', i],
      ['name', want.name],
      ['source', want.source],
      ['transform', want.transform],
    ] as const) {
      const value = field(got, key);
      if (value !== expected) throw wrong(`channels[${i}].${key}`, describe(expected), value);
    }
    if (want.transform === 'flag') continue;
    const where = `channels[${i}]`;
    const scale = finite(field(got, 'scale'), `${where}.scale`);
    if (!(scale > 0)) throw wrong(`${where}.scale`, 'a positive number', scale);
    let low = Number.NEGATIVE_INFINITY;
    let high = Number.POSITIVE_INFINITY;
    if (want.clipped) {
      const clip = field(got, 'clip');
      if (!Array.isArray(clip) || clip.length !== 2) throw wrong(`${where}.clip`, '[low, high]', clip);
      low = finite(clip[0], `${where}.clip[0]`);
      high = finite(clip[1], `${where}.clip[1]`);
      if (low >= high || (want.transform === 'log' && low <= 0))
        throw wrong(`${where}.clip`, 'low < high in the domain', clip);
    }
    scaling[want.name as ScaledChannel] = {
      mean: finite(field(got, 'mean'), `${where}.mean`),
      scale,
      low,
      high,
      log: want.transform === 'log',
    };
  }
  const split = field(json, 'split');
  const prefix = field(split, 'prefix');
  if (field(split, 'hash') !== 'sha256') throw wrong('split.hash', '"sha256"', field(split, 'hash'));
  if (typeof prefix !== 'string') throw wrong('split.prefix', 'a string', prefix);
  return {
    steps: positiveInteger(field(json, 'steps'), 'steps'),
    width,
    horizonDays: positiveInteger(field(json, 'horizon_days'), 'horizon_days'),
    minimumRows: positiveInteger(field(json, 'min_rows'), 'min_rows'),
    split: {
      prefix,
      trainBelow: finite(field(split, 'train_below'), 'split.train_below'),
      validBelow: finite(field(split, 'valid_below'), 'split.valid_below'),
    },
    scaling,
    channels: channelTable.map((c) => c.name),
  };
}
