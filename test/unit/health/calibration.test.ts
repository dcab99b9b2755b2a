import fc from 'fast-check';
import { Calibration, calibrateRows, reliability } from '../../../src/data/health/calibration';
import { studyCalibration } from '../../../src/data/health/report';
import { SeededRandom } from '../../../src/data/metrics';
import { seed } from '../../seed';

/** Rows whose true probability is `truth(raw)`. */
function rows(n: number, truth: (raw: number) => number): { labels: number[]; raw: number[] } {
  const random = new SeededRandom(7);
  const uniform = () => (random.next() + 0.5) / 2 ** 32;
  const raw = Array.from({ length: n }, uniform);
  return { raw, labels: raw.map((p) => (uniform() < truth(p) ? 1 : 0)) };
}
const logit = (p: number) => Math.log(p / (1 - p));
const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));

describe('Calibration', () => {
  test('temperature and Platt find the parameters that made the labels', () => {
    const hot = rows(40000, (p) => sigmoid(logit(p) / 2));
    const json = Calibration.fit('temperature', hot.labels, hot.raw).toJSON();
    expect(json.method === 'temperature' && Math.abs(json.temperature - 2)).toBeLessThan(0.1);
    const skewed = rows(40000, (p) => sigmoid(0.7 * logit(p) - 1.2));
    const platt = Calibration.fit('platt', skewed.labels, skewed.raw).toJSON();
    expect(platt.method === 'platt' && Math.abs(platt.slope - 0.7)).toBeLessThan(0.05);
    expect(platt.method === 'platt' && Math.abs(platt.intercept + 1.2)).toBeLessThan(0.05);
  });

  test('Platt at its optimum: mean prediction equals the share of positives', () => {
    const { labels, raw } = rows(500, (p) => p * p);
    const mean =
      Calibration.fit('platt', labels, raw)
        .apply(raw)
        .reduce((a, b) => a + b, 0) / 500;
    expect(Math.abs(mean - labels.reduce((a, b) => a + b, 0) / 500)).toBeLessThan(1e-6);
  });

  test('isotonic regression on a small case worked by hand', () => {
    const raw = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    const fitted = Calibration.fit('isotonic', [0, 1, 0, 0, 1, 1], raw);
    expect(fitted.toJSON()).toEqual({
      method: 'isotonic',
      scores: [0.1, 0.2, 0.4, 0.5, 0.6],
      probabilities: [0, 1 / 3, 1 / 3, 1, 1],
    });
    expect(fitted.probability(0.15)).toBeCloseTo(1 / 6, 12);
    expect([fitted.probability(0), fitted.probability(0.99)]).toEqual([0, 1]);
  });

  test('all methods are monotone, stay in 0…1, survive JSON, and never worsen the fitted log loss', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean()), { minLength: 4, maxLength: 60 }),
        fc.constantFrom('temperature', 'platt', 'isotonic'),
        (pairs, method) => {
          const raw = [...pairs.map(([p]) => p), 0.4, 0.6];
          const labels = [...pairs.map(([, y]) => y), true, false];
          const fitted = Calibration.fit(method, labels, raw);
          const again = Calibration.fromJSON(JSON.parse(JSON.stringify(fitted)));
          const grid = Array.from({ length: 21 }, (_, i) => i / 20);
          const out = fitted.apply(grid);
          expect(again.apply(grid)).toEqual(out);
          expect(out.every((p) => p >= 0 && p <= 1)).toBe(true);
          const slope = fitted.toJSON();
          if (!(slope.method === 'platt' && slope.slope < 0)) {
            for (let i = 1; i < out.length; i++) expect(out[i]!).toBeGreaterThanOrEqual(out[i - 1]! - 1e-12);
          }
          const brier = (p: ArrayLike<number>) => reliability(labels, p).brier;
          if (method === 'isotonic') expect(brier(fitted.apply(raw))).toBeLessThanOrEqual(brier(raw) + 1e-12);
        },
      ),
      { seed },
    );
  });

  test('errors', () => {
    expect(() => Calibration.fit('platt', [1, 1], [0.1, 0.2])).toThrow(/both classes/);
    expect(() => Calibration.fit('platt', [1, 0], [0.1, 1.2])).toThrow(/probabilities\[1\]/);
    expect(() => Calibration.fit('platt', [1], [0.1, 1.2])).toThrow(/one probability per label/);
    expect(() => Calibration.fromJSON({ method: 'platt', slope: 1 })).toThrow(/JSON of a calibration/);
    expect(() => Calibration.fit('other' as 'platt', [1, 0], [0.1, 0.2])).toThrow(/method/);
  });
});

describe('reliability', () => {
  test('a small table worked by hand', () => {
    const got = reliability([0, 1, 1, 0], [0.1, 0.3, 0.9, 1], { bins: 2 });
    expect(got.brier).toBeCloseTo((0.01 + 0.49 + 0.01 + 1) / 4, 12);
    expect(got.bins.map((b) => [b.low, b.high, b.count])).toEqual([
      [0, 0.5, 2],
      [0.5, 1, 2],
    ]);
    expect(got.bins[0]!.predicted).toBeCloseTo(0.2, 12);
    expect(got.bins[0]!.observed).toBe(0.5);
    expect(got.expectedCalibrationError).toBeCloseTo((2 * 0.3 + 2 * 0.45) / 4, 12);
  });

  test('bins of equal counts keep ties together', () => {
    const got = reliability([0, 1, 1, 0], [0.5, 0.5, 0.5, 0.9], { bins: 2, strategy: 'count' });
    expect(got.bins.map((b) => b.count)).toEqual([3, 1]);
  });

  test('perfect probabilities of 0 and 1', () => {
    const got = reliability([0, 1], [0, 1]);
    expect([got.brier, got.expectedCalibrationError]).toEqual([0, 0]);
    expect(got.bins[9]!.count).toBe(1);
  });
});

describe('rows of several labels', () => {
  const platt = Calibration.fromJSON({ method: 'platt', slope: 0.5, intercept: 1 });
  const raw = [0.2, 0.3, 0.5, 1, 0, 0];

  test('classes of which one is true sum to 1; those that are not calibrated count raw', () => {
    const apart = calibrateRows(raw, [platt, null, platt], false);
    expect(Array.from(apart)).toEqual(raw.map((p, i) => (i % 3 === 1 ? p : platt.probability(p))));
    const together = Array.from(calibrateRows(raw, [platt, null, platt], true));
    for (const row of [0, 3]) {
      const sum = apart[row]! + apart[row + 1]! + apart[row + 2]!;
      for (const c of [0, 1, 2]) expect(together[row + c]).toBe(apart[row + c]! / sum);
      expect(together[row]! + together[row + 1]! + together[row + 2]!).toBeCloseTo(1, 14);
    }
    expect(calibrateRows(raw, [null, null, null], true)).toBe(raw);
    const nothing = Calibration.fromJSON({ method: 'isotonic', scores: [0.5], probabilities: [0] });
    expect(Array.from(calibrateRows([0.4, 0.6], [nothing, nothing], true))).toEqual([0.4, 0.6]);
    expect(Array.from(calibrateRows([Number.NaN, 0.6], [platt, platt], true))).toEqual([Number.NaN, Number.NaN]);
  });

  test('studies judge what is reported: the divided rows', () => {
    const scores = Array.from({ length: 60 }, (_, i) => (i % 10) / 20 + 0.05);
    const labels = scores.map((p, i) => ((i * 7) % 20 < 20 * p * p ? 1 : 0)) as (0 | 1)[];
    const label = (name: string, y: (0 | 1)[], p: number[]) => ({ name, labels: y, scores: p });
    const two = [
      label('a', labels, scores),
      label(
        'b',
        labels.map((y) => (1 - y) as 0 | 1),
        scores.map((p) => 1 - p),
      ),
    ];
    const judged = studyCalibration(two, two, 'isotonic', true).map((study) => study!);
    const fitted = judged.map(({ calibration }, k) => calibration.apply(two[k]!.scores));
    const divided = fitted[0]!.map((p, i) => p / (p + fitted[1]![i]!));
    expect(judged[0]!.after).toEqual(reliability(labels, divided));
    const fewer = [two[0]!, label('b', [0, 1], [0.1, 0.2])];
    expect(() => studyCalibration(two, fewer, 'platt', true)).toThrow(/expected 60 rows of each label.*got 2 of "b"/);
  });
});
