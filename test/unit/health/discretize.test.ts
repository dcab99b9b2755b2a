import { type DiscretizeOptions, discretize } from '../../../src/data/health/discretize';
import { episodeHeader, healthVariables } from '../../../src/data/health/schema';
import { HPformerError } from '../../../src/errors';
import { fixtureJson, fixtureNpy, fixtureText, sameBits } from './fixtures';

const ids = ['10001', '10002', '10003', '10004', '10005', '10006'];
const index = fixtureJson<{ ids: Record<string, { sum: number; mask_ones: number }> }>('index.json');

function csv(rows: [string, Record<string, string>][], first = 'Hours'): string {
  const names = healthVariables.map((v) => v.name);
  return [
    [first, ...names].join(','),
    ...rows.map(([time, values]) => [time, ...names.map((name) => values[name] ?? '')].join(',')),
    '',
  ].join('\n');
}

describe('discretize', () => {
  test('columns are the published 76', () => {
    expect(discretize(csv([['1.0', {}]])).columns).toEqual(fixtureJson('columns.json'));
    expect(episodeHeader).toBe(fixtureText('ihm/input/10001_episode1_timeseries.csv').split('\n')[0]);
  });

  test.each(ids)('48 hours of %s bit for bit', (id) => {
    const got = discretize(fixtureText(`ihm/input/${id}_episode1_timeseries.csv`), { end: 48 });
    const expected = fixtureNpy(`ihm/expected/${id}_discretized.npy`);
    expect(got.dims).toEqual(expected.dims);
    expect(sameBits(got.values, expected.data)).toBe(true);
    expect(got.skipped).toBe(0);
    let masks = 0;
    got.values.forEach((x, i) => {
      if (i % 76 >= 59) masks += x;
    });
    expect(masks).toBe(index.ids[id]!.mask_ones);
  });

  const variants =
    fixtureJson<
      {
        file: string;
        input: string;
        options: { timestep: number; store_masks: boolean; impute_strategy: string; start_time: 'zero' | 'relative' };
        end: number | null;
        shape: number[];
      }[]
    >('variants/variants.json');

  test.each(variants)('$file: step $options.timestep, $options.impute_strategy, $options.start_time', (variant) => {
    const { timestep, store_masks, impute_strategy, start_time } = variant.options;
    const options: DiscretizeOptions = {
      step: timestep,
      masks: store_masks,
      fill: impute_strategy.replace('_value', '') as NonNullable<DiscretizeOptions['fill']>,
      start: start_time,
      ...(variant.end === null ? {} : { end: variant.end }),
    };
    const got = discretize(fixtureText(`ihm/input/${variant.input}`), options);
    const expected = fixtureNpy(`variants/${variant.file}`);
    expect(got.dims).toEqual(variant.shape);
    expect(got.columns).toHaveLength(variant.shape[1]!);
    expect(sameBits(got.values, expected.data)).toBe(true);
  });

  const errors =
    fixtureJson<
      {
        case: string;
        rows: [string, Record<string, string>][];
        end: number;
        options: { impute_strategy?: string; start_time?: string; timestep?: number };
        header0: string;
        reference_outcome: string;
      }[]
    >('errors.json');

  test.each(errors)('$case: $reference_outcome', ({ rows, end, options, header0, reference_outcome }) => {
    const run = () =>
      discretize(csv(rows, header0), {
        end,
        ...(options.timestep === undefined ? {} : { step: options.timestep }),
        ...(options.impute_strategy === undefined ? {} : { fill: options.impute_strategy as 'zero' }),
        ...(options.start_time === undefined ? {} : { start: options.start_time as 'zero' }),
      });
    if (reference_outcome !== 'ok') {
      expect(run).toThrow(HPformerError);
      return;
    }
    const { values } = run();
    let masks = 0;
    for (let i = 0; i < values.length; i++) if (i % 76 >= 59) masks += values[i]!;
    expect(masks).toBe(new Set(rows.map(([time]) => Math.trunc(Number(time) - 1e-6))).size);
  });

  test('messages name file, line and column', () => {
    const options = { file: '1_episode1_timeseries.csv', end: 48 };
    expect(() =>
      discretize(
        csv([
          ['1', {}],
          ['2', { 'Heart Rate': '80 bpm' }],
        ]),
        options,
      ),
    ).toThrow('1_episode1_timeseries.csv line 3, column "Heart Rate": expected a number, got "80 bpm"');
    expect(() => discretize(csv([['1', { 'Glascow coma scale total': '15.0' }]]), options)).toThrow(
      /line 2, column "Glascow coma scale total": expected one of .*got "15.0"/,
    );
    expect(() =>
      discretize(
        csv([
          ['2', {}],
          ['1', {}],
        ]),
        options,
      ),
    ).toThrow(/line 3, column "Hours": expected times that/);
    expect(() => discretize(`${csv([['1', {}]])}2,3\n`, options)).toThrow(/line 3: expected 18 fields .*got 2/);
    expect(() => discretize(csv([]), options)).toThrow(/at least one row/);
    expect(() => discretize(csv([['x', {}]]), options)).toThrow(/column "Hours": expected a number of hours, got "x"/);
  });

  test('unknown categories can be skipped and counted', () => {
    const text = csv([['1', { 'Glascow coma scale total': '15.0', 'Heart Rate': '70' }]]);
    const got = discretize(text, { end: 3, unknown: 'skip' });
    expect(got.skipped).toBe(1);
    expect(sameBits(got.values, discretize(csv([['1', { 'Heart Rate': '70' }]]), { end: 3 }).values)).toBe(true);
    expect(() => discretize(csv([['1', { 'Heart Rate': 'x' }]]), { unknown: 'skip' })).toThrow(/expected a number/);
  });

  test('rows after the end are not even read', () => {
    expect(
      discretize(
        csv([
          ['1', {}],
          ['49', { 'Heart Rate': 'x' }],
        ]),
        { end: 48 },
      ).dims,
    ).toEqual([48, 76]);
  });

  test('an end of null is none; unknown options are refused', () => {
    const text = csv([
      ['1', {}],
      ['4.5', {}],
    ]);
    expect(discretize(text, { end: null }).dims).toEqual([5, 76]);
    expect(() => discretize(text, { timestep: 1 } as DiscretizeOptions)).toThrow(/got "timestep"/);
  });

  test('columns may come in any order', () => {
    const rows = fixtureText('ihm/input/10001_episode1_timeseries.csv')
      .trimEnd()
      .split('\n')
      .map((l) => l.split(','));
    const turned = rows.map(([hours, ...rest]) => [hours, ...rest.reverse()].join(',')).join('\r\n');
    const expected = fixtureNpy('ihm/expected/10001_discretized.npy').data;
    expect(sameBits(discretize(turned, { end: 48 }).values, expected)).toBe(true);
  });
});

test.each([-0.5, -1, -2, -5])('an end before the start is an error: %p', (end) => {
  expect(() => discretize(`${episodeHeader}\n1${','.repeat(17)}\n`, { end })).toThrow(
    `episode: expected an end after the start, got ${end} hours from start to end`,
  );
});
