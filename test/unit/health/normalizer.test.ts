import fc from 'fast-check';
import { discretize } from '../../../src/data/health/discretize';
import { Normalizer } from '../../../src/data/health/normalizer';
import { seed } from '../../seed';
import { fixtureJson, fixtureNpy, fixtureText } from './fixtures';

const ids = ['10001', '10002', '10003', '10004', '10005', '10006'];
interface Golden {
  n_samples_seen: number;
  mean: number[];
  var: number[];
  scale: number[];
}

function expectClose(got: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(got.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < got.length; i++) {
    const bound = 1e-12 + 1e-9 * Math.abs(expected[i]!);
    worst = Math.max(worst, Math.abs(got[i]! - expected[i]!) / bound);
  }
  expect(worst).toBeLessThanOrEqual(1);
}

describe('Normalizer', () => {
  const matrices = ids.map((id) => discretize(fixtureText(`ihm/input/${id}_episode1_timeseries.csv`), { end: 48 }));

  test('the golden scaler over 288 rows', () => {
    const golden = fixtureJson<Golden>('ihm/expected/normalizer.json');
    const normalizer = Normalizer.fit(matrices);
    const json = normalizer.toJSON();
    expect(json.n_samples_seen).toBe(golden.n_samples_seen);
    expectClose(json.mean, golden.mean);
    expectClose(json.var!, golden.var);
    expectClose(json.scale, golden.scale);
    ids.forEach((id, i) => {
      const expected = fixtureNpy(`ihm/expected/${id}_normalized.npy`).data;
      expectClose(normalizer.apply(matrices[i]!), expected);
      expectClose(Normalizer.fromJSON(golden).apply(matrices[i]!.values), expected);
    });
  });

  test('JSON there and back gives the same bits', () => {
    const normalizer = Normalizer.fit(matrices.map((m) => m.values));
    const again = Normalizer.fromJSON(JSON.parse(JSON.stringify(normalizer)));
    expect(again.apply(matrices[0]!)).toEqual(normalizer.apply(matrices[0]!));
    expect(again.toJSON()).toEqual(normalizer.toJSON());
  });

  test('numeric columns only, divided by N − 1', () => {
    const normalizer = Normalizer.fit(matrices, { columns: 'numeric' });
    const all = Normalizer.fit(matrices).toJSON();
    const { columns } = matrices[0]!;
    columns.forEach((name, c) => {
      if (name.includes('->')) {
        expect([normalizer.mean[c], normalizer.scale[c]]).toEqual([0, 1]);
      } else {
        const expected = Math.max(Math.sqrt((all.var![c]! * 288) / 287), 1e-7);
        expect(Math.abs(normalizer.scale[c]! / expected - 1)).toBeLessThan(1e-12);
      }
    });
  });

  test('a constant column is scaled by 1, NaN is left out and stays', () => {
    const rows = Float64Array.of(0.1, 1, 0.1, Number.NaN, 0.1, 3);
    const normalizer = Normalizer.fit([rows], { width: 2 });
    expect(normalizer.toJSON()).toMatchObject({ mean: [0.1, 2], var: [0, 1], scale: [1, 1] });
    expect(normalizer.apply(rows)).toEqual(Float64Array.of(0, -1, 0, Number.NaN, 0, 1));
  });

  test('the same statistics however rows are split into episodes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.double({ min: -1e3, max: 1e3, noNaN: true }), fc.integer({ min: -5, max: 5 })), {
          minLength: 2,
          maxLength: 60,
        }),
        fc.integer({ min: 1, max: 59 }),
        (rows, cut) => {
          const data = Float64Array.from(rows.flat());
          const at = Math.min(cut, rows.length - 1) * 2;
          const whole = Normalizer.fit([data], { width: 2 }).toJSON();
          const split = Normalizer.fit([data.subarray(0, at), data.subarray(at)], { width: 2 }).toJSON();
          for (let c = 0; c < 2; c++) {
            expect(Math.abs(whole.mean[c]! - split.mean[c]!)).toBeLessThanOrEqual(1e-10);
            expect(Math.abs(whole.var![c]! - split.var![c]!)).toBeLessThanOrEqual(1e-7);
          }
        },
      ),
      { seed },
    );
  });

  test('errors', () => {
    expect(() => Normalizer.fit([])).toThrow(/at least one row/);
    expect(() => Normalizer.fit([new Float64Array(75)])).toThrow(/rows of 76 columns, got 75 numbers/);
    expect(() => Normalizer.fit([Float64Array.of(1, Number.POSITIVE_INFINITY)], { width: 2 })).toThrow(/finite/);
    expect(() => Normalizer.fit([new Float64Array(4)], { width: 2, columns: 'numeric' })).toThrow(/names/);
    expect(() => Normalizer.fit(matrices).apply(new Float64Array(75))).toThrow(/76/);
    expect(() => Normalizer.fromJSON({ mean: [1], scale: [0] })).toThrow(/positive/);
    expect(() => Normalizer.fromJSON({ version: 2, mean: [1], scale: [1] })).toThrow(/version/);
  });
});
