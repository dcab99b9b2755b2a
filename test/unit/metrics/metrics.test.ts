import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import {
  BinaryRanking,
  binaryMetrics,
  bootstrapIntervals,
  multiclassMetrics,
  quantile,
  SeededRandom,
} from '../../../src/data/metrics';
import { HPformerError } from '../../../src/errors';
import { seed } from '../../seed';

const property = { seed, verbose: 1 as const };

interface Golden {
  binary: { y: number[]; p: number[]; expected: { AUROC: number; AUPRC: number; 'Min(Se, P+)': number } }[];
  multiclass: {
    classes: number[];
    p: number[][];
    expected: { Kappa: number; 'Micro AUROC': number; 'Macro AUROC': number };
  }[];
}
const golden: Golden = JSON.parse(fs.readFileSync(path.join(__dirname, 'metrics.golden.json'), 'utf8'));

function caught(action: () => unknown): HPformerError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(HPformerError);
    return error as HPformerError;
  }
  throw new Error('expected an error');
}

/** Straight from the definitions: all pairs for AUROC, every distinct threshold for the rest. */
function slow(y: number[], p: number[]) {
  const positives = y.filter((v) => v === 1).length;
  let pairs = 0;
  for (let i = 0; i < y.length; i++) {
    for (let j = 0; j < y.length; j++) {
      if (y[i] === 1 && y[j] === 0) pairs += p[i]! > p[j]! ? 1 : p[i] === p[j] ? 0.5 : 0;
    }
  }
  const points: [number, number][] = [[0, 1]];
  for (const t of [...new Set(p)].sort((a, b) => b - a)) {
    const chosen = y.filter((_, i) => p[i]! >= t);
    const hit = chosen.filter((v) => v === 1).length;
    points.push([hit / positives, hit / chosen.length]);
  }
  let auprc = 0;
  for (let k = 1; k < points.length; k++) {
    auprc += (points[k]![0] - points[k - 1]![0]) * (points[k]![1] + points[k - 1]![1]) * 0.5;
  }
  return {
    auroc: pairs / (positives * (y.length - positives)),
    auprc,
    minSensitivityPrecision: Math.max(...points.map(([r, q]) => Math.min(r, q))),
  };
}

/** Labels with both classes and scores with many ties. */
const ranked = fc
  .array(
    fc.record({
      y: fc.integer({ min: 0, max: 1 }),
      p: fc.integer({ min: -3, max: 6 }),
      w: fc.integer({ min: 0, max: 3 }),
    }),
    {
      minLength: 2,
      maxLength: 60,
    },
  )
  .filter((rows) => rows.some((r) => r.y === 1 && r.w > 0) && rows.some((r) => r.y === 0 && r.w > 0));

describe(`metrics (SEED=${seed})`, () => {
  test.each(golden.binary.map((c, i) => [i, c] as const))(
    'binary golden case %i, to six decimals, with ties',
    (_, c) => {
      const got = binaryMetrics(c.y, c.p);
      expect(Number(got.auroc.toFixed(6))).toBe(c.expected.AUROC);
      expect(Number(got.auprc.toFixed(6))).toBe(c.expected.AUPRC);
      expect(Number(got.minSensitivityPrecision.toFixed(6))).toBe(c.expected['Min(Se, P+)']);
    },
  );

  test.each(golden.multiclass.map((c, i) => [i, c] as const))('multiclass golden case %i', (_, c) => {
    for (const scores of [
      c.p,
      c.p.flat(),
      { data: Float64Array.from(c.p.flat()), dims: [c.p.length, c.p[0]!.length] },
    ]) {
      const got = multiclassMetrics(c.classes, scores);
      expect(Math.abs(got.kappa - c.expected.Kappa)).toBeLessThanOrEqual(1e-12);
      expect(Math.abs(got.microAuroc - c.expected['Micro AUROC'])).toBeLessThanOrEqual(1e-12);
      expect(Math.abs(got.macroAuroc - c.expected['Macro AUROC'])).toBeLessThanOrEqual(1e-12);
    }
  });

  test('one pass over sorted rows equals the definitions', () => {
    fc.assert(
      fc.property(ranked, (rows) => {
        const kept = rows.filter((r) => r.w > 0);
        const got = binaryMetrics(
          kept.map((r) => r.y),
          kept.map((r) => r.p),
        );
        const want = slow(
          kept.map((r) => r.y),
          kept.map((r) => r.p),
        );
        expect(got.auroc).toBeCloseTo(want.auroc, 12);
        expect(got.auprc).toBeCloseTo(want.auprc, 12);
        expect(got.minSensitivityPrecision).toBeCloseTo(want.minSensitivityPrecision, 12);
      }),
      property,
    );
  });

  test('integer weights equal repeated rows, and the curve ends at all rows', () => {
    fc.assert(
      fc.property(ranked, (rows) => {
        const repeated = rows.flatMap((r) => Array<typeof r>(r.w).fill(r));
        const ranking = new BinaryRanking(
          rows.map((r) => r.y),
          rows.map((r) => r.p),
        );
        const weights = rows.map((r) => r.w);
        const got = ranking.metrics(weights);
        const want = binaryMetrics(
          repeated.map((r) => r.y),
          repeated.map((r) => r.p),
        );
        expect(got).toEqual(want);
        const last = ranking.curve(weights).at(-1)!;
        expect(last.truePositives + last.falsePositives).toBe(repeated.length);
      }),
      property,
    );
  });

  test('an order-preserving change of scores changes nothing; a reversal mirrors AUROC', () => {
    fc.assert(
      fc.property(ranked, (rows) => {
        const y = rows.map((r) => r.y);
        const p = rows.map((r) => r.p);
        const plain = binaryMetrics(y, p);
        expect(binaryMetrics(y, p.map(Math.exp))).toEqual(plain);
        expect(
          binaryMetrics(
            y,
            p.map((v) => -v),
          ).auroc,
        ).toBeCloseTo(1 - plain.auroc, 12);
      }),
      property,
    );
  });

  test('kappa is 1 for perfect classes; macro AUROC is NaN when a class is missing', () => {
    const identity = [0, 1, 2, 1].map((c) => [0, 1, 2].map((k) => (k === c ? 0.8 : 0.1)));
    expect(multiclassMetrics([0, 1, 2, 1], identity)).toEqual({ kappa: 1, microAuroc: 1, macroAuroc: 1 });
    const missing = multiclassMetrics([0, 1, 0, 1], identity);
    expect(missing.macroAuroc).toBeNaN();
    expect(missing.kappa).toBeLessThan(1);
  });

  test('bad input is one error that says where', () => {
    const cases: [() => unknown, RegExp][] = [
      [() => binaryMetrics([0, 1], [0.1]), /2 labels and 1 scores/],
      [() => binaryMetrics([], []), /at least one row/],
      [() => binaryMetrics([0, 2], [0.1, 0.2]), /labels\[1\]: expected 0 or 1, got 2/],
      [() => binaryMetrics([0, 1], [0.1, Number.NaN]), /scores\[1\]: expected a finite number, got NaN/],
      [() => binaryMetrics([1, 1], [0.1, 0.2]), /both classes, got only 1/],
      [
        () =>
          multiclassMetrics(
            [0, 3],
            [
              [0.5, 0.5],
              [0.5, 0.5],
            ],
          ),
        /labels\[1\]: expected a class 0…1, got 3/,
      ],
      [() => multiclassMetrics([0, 1], [[0.5, 0.5], [0.5]]), /scores\[1\]: expected 2 classes, got 1/],
      [() => multiclassMetrics([0, 1], [[1], [1]]), /at least 2 classes/],
      [() => multiclassMetrics([0, 1], [0.5, 0.5, 0.5]), /multiple of 2/],
    ];
    for (const [action, message] of cases) {
      const error = caught(action);
      expect(error.code).toBe('ERR_HPFORMER_INPUT');
      expect(error.message).toMatch(message);
    }
    for (const options of [{ samples: 0 }, { level: 1 }, { seed: 0.5 }]) {
      expect(caught(() => bootstrapIntervals(3, () => ({ a: 1 }), options)).code).toBe('ERR_HPFORMER_RANGE');
    }
  });
});

describe('bootstrap', () => {
  test('quantile interpolates as numpy does', () => {
    expect(quantile([1, 2, 3, 4], 0.025)).toBeCloseTo(1.075, 12);
    expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
    expect(quantile([7], 0.9)).toBe(7);
  });

  test('the generator gives the numbers of its definition', () => {
    // xoshiro128** from state 1, 2, 3, 4: the first outputs follow from the recurrence by hand.
    const random = new SeededRandom(0);
    (random as unknown as { state: Uint32Array }).state.set([1, 2, 3, 4]);
    expect([random.next(), random.next(), random.next()]).toEqual([11520, 0, 5927040]);
  });

  test('same seed, same intervals; rows of a group are drawn together', () => {
    const groups = ['a', 'a', 'b', 'b', 'b', 'c'];
    const together: boolean[] = [];
    const statistic = (weights: Uint32Array) => {
      together.push(weights[0] === weights[1] && weights[2] === weights[3] && weights[3] === weights[4]);
      return { mean: weights[0]! };
    };
    const first = bootstrapIntervals(groups, statistic, { samples: 200, seed: 9 });
    expect(bootstrapIntervals(groups, statistic, { samples: 200, seed: 9 })).toEqual(first);
    expect(together.every(Boolean)).toBe(true);
    expect(first.mean.samples).toBe(200);
  });

  test('the interval of a mean has the width that theory gives', () => {
    const random = new SeededRandom(3);
    const values = Float64Array.from({ length: 400 }, () => random.next() / 2 ** 32);
    const { mean } = bootstrapIntervals(
      values.length,
      (w) => ({ mean: values.reduce((sum, v, i) => sum + v * w[i]!, 0) / values.length }),
      { samples: 2000 },
    );
    const average = values.reduce((a, b) => a + b) / values.length;
    const sd = Math.sqrt(values.reduce((a, v) => a + (v - average) ** 2, 0) / values.length);
    expect(mean.low).toBeLessThan(average);
    expect(mean.high).toBeGreaterThan(average);
    expect(mean.high - mean.low).toBeCloseTo((2 * 1.96 * sd) / Math.sqrt(values.length), 2);
  });

  test('samples without a class are left out and counted', () => {
    const ranking = new BinaryRanking([1, 0, 0], [0.9, 0.2, 0.1]);
    const { auroc } = bootstrapIntervals(3, (w) => ({ auroc: ranking.metrics(w).auroc }), { samples: 300 });
    expect(auroc.samples).toBeGreaterThan(50);
    expect(auroc.samples).toBeLessThan(300);
    expect([auroc.low, auroc.high]).toEqual([1, 1]);
  });
});
