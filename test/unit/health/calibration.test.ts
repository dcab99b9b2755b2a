import fc from 'fast-check';
import { Calibration, reliability } from '../../../src/data/health/calibration';
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
