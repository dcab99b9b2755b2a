import fc from 'fast-check';
import { discretize } from '../../../src/data/health/discretize';
import { decompensationLabels, lengthOfStayClass, lengthOfStayLabels } from '../../../src/data/health/labels';
import { Normalizer } from '../../../src/data/health/normalizer';
import { seed } from '../../seed';
import { fixtureJson, fixtureNpy, fixtureText, samplesByStay } from './fixtures';

interface Expected {
  normalizer: { mean: number[]; var: number[]; scale: number[] };
  results: {
    file: string;
    steps: number;
    mask: number[];
    cur_mask: number[];
    labels: number[];
    normalized_saved: boolean;
    checksum_sum: number;
    checksum_abs: number;
    padded_504: { mask_sum: number; cur_mask_index: number };
    padded_8: { mask_sum: number; cur_mask_index: number };
  }[];
}

describe.each([
  ['dp', decompensationLabels],
  ['los', lengthOfStayLabels],
] as const)('%s', (task, labelsOf) => {
  const samples = samplesByStay(`${task}/listfile.csv`);
  const expected = fixtureJson<Expected>(`${task}/expected/expected.json`);
  const matrices = expected.results.map(({ file }) =>
    discretize(fixtureText(`${task}/input/${file}`), { end: Math.max(...samples.get(file)!.map((s) => s.hours)) }),
  );

  test.each(['published', 'corrected'] as const)('golden labels, masks and readout steps (%s)', (compat) => {
    for (const result of expected.results) {
      const stay = samples.get(result.file)!;
      const got = labelsOf(stay, { compat });
      expect(got.labels).toHaveLength(504);
      expect(Array.from(got.labels.subarray(0, result.steps))).toEqual(result.labels);
      expect(Array.from(got.valid.subarray(0, result.steps))).toEqual(result.mask);
      expect(got.valid.reduce((a, b) => a + b, 0)).toBe(result.padded_504.mask_sum);
      expect(got.step).toBe(result.padded_504.cur_mask_index);
      expect(got.labels.subarray(result.steps).every((x) => x === 0)).toBe(true);
      const cut = labelsOf(stay, { steps: 8, compat });
      expect(cut.valid.reduce((a, b) => a + b, 0)).toBe(result.padded_8.mask_sum);
      expect(cut.step).toBe(result.padded_8.cur_mask_index);
      expect(cut.labels).toEqual(got.labels.slice(0, 8));
    }
  });

  test('golden scaler and matrices', () => {
    const normalizer = Normalizer.fit(matrices);
    const worst = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
      let w = 0;
      for (let i = 0; i < want.length; i++) {
        w = Math.max(w, Math.abs(got[i]! - want[i]!) / (1e-12 + 1e-9 * Math.abs(want[i]!)));
      }
      return w;
    };
    expect(worst(normalizer.toJSON().mean, expected.normalizer.mean)).toBeLessThanOrEqual(1);
    expect(worst(normalizer.toJSON().var!, expected.normalizer.var)).toBeLessThanOrEqual(1);
    expect(worst(normalizer.toJSON().scale, expected.normalizer.scale)).toBeLessThanOrEqual(1);
    expected.results.forEach((result, i) => {
      const got = normalizer.apply(matrices[i]!);
      expect(got).toHaveLength(result.steps * 76);
      expect(Math.abs(got.reduce((a, b) => a + b, 0) - result.checksum_sum)).toBeLessThan(1e-8);
      expect(Math.abs(got.reduce((a, b) => a + Math.abs(b), 0) / result.checksum_abs - 1)).toBeLessThan(1e-9);
      if (result.normalized_saved) {
        const want = fixtureNpy(`${task}/expected/${result.file.slice(0, 5)}_normalized.npy`).data;
        expect(worst(got, want)).toBeLessThanOrEqual(1);
      }
    });
  });

  test('the order of samples does not matter', () => {
    const stay = samples.get('10002_episode1_timeseries.csv')!;
    fc.assert(
      fc.property(fc.shuffledSubarray(stay, { minLength: stay.length }), (shuffled) => {
        expect(labelsOf(shuffled)).toEqual(labelsOf(stay));
      }),
      { seed, numRuns: 20 },
    );
  });
});

describe('defects of the reference', () => {
  const late = [7, 8, 9, 10].map((hours) => ({ hours, label: 0 }));

  test('steps before a late first event: label 0 as published, not valid when corrected', () => {
    const published = decompensationLabels(late, { steps: 10, compat: 'published' });
    expect(Array.from(published.valid)).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    const corrected = decompensationLabels(late, { steps: 10 });
    expect(Array.from(corrected.valid)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    const remaining = late.map(({ hours }) => ({ hours, label: 100 - hours }));
    expect(Array.from(lengthOfStayLabels(remaining, { steps: 10, compat: 'published' }).labels)).toEqual([
      0, 0, 0, 0, 0, 0, 3, 3, 3, 3,
    ]);
    expect(Array.from(lengthOfStayLabels(remaining, { steps: 10 }).valid)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
  });

  test.each([
    [24, [1, 1, 1, 1]],
    [25, [0, 1, 1, 1]],
    [26, [0, 0, 1, 1]],
    [27, [0, 0, 0, 1]],
    [28, [0, 0, 0, 0]],
  ])('the patch of the first four steps at %d steps', (steps, head) => {
    const samples = Array.from({ length: steps - 4 }, (_, i) => ({ hours: i + 5, label: 1 }));
    expect(Array.from(decompensationLabels(samples).labels.subarray(0, 4))).toEqual(head);
  });

  test('fewer than five steps are an error as published', () => {
    expect(() => decompensationLabels([{ hours: 3, label: 0 }], { compat: 'published' })).toThrow(/after hour 4/);
    expect(Array.from(decompensationLabels([{ hours: 3, label: 1 }], { steps: 4 }).valid)).toEqual([1, 1, 1, 0]);
  });
});

test('class edges belong to the upper class', () => {
  expect([-1, 0, 23.999999, 24, 48, 191.9, 192, 335.9, 336, 1e6].map(lengthOfStayClass)).toEqual([
    0, 0, 0, 1, 2, 7, 8, 8, 9, 9,
  ]);
});

test.each([decompensationLabels, lengthOfStayLabels])(
  'hours beyond 30 years may not fill the memory: %p',
  (labelsOf) => {
    const at = (hours: number) => () => labelsOf([{ hours, label: 1 }], { steps: 5 });
    expect(at(262_144)().step).toBe(4);
    for (const hours of [262_145, 9e8])
      expect(at(hours)).toThrow(/samples\[0\]\.hours: expected hours of the stay, above 0 and at most 262144, got/);
  },
);

test('malformed samples are named', () => {
  expect(() => decompensationLabels([])).toThrow(/at least one sample/);
  expect(() => decompensationLabels([{ hours: 5, label: 2 }])).toThrow(/samples\[0\]\.label: expected 0 or 1, got 2/);
  expect(() => lengthOfStayLabels([{ hours: Number.NaN, label: 2 }])).toThrow(/samples\[0\]\.hours/);
  expect(() => lengthOfStayLabels([{ hours: 5, label: Number.NaN }])).toThrow(/remaining hours/);
  expect(() => lengthOfStayLabels([{ hours: 5, label: 1 }], { steps: 0 })).toThrow(/steps/);
  expect(() => lengthOfStayLabels([{ hours: 5, label: 1 }], { steps: 1e15 })).toThrow(/steps: expected/);
  expect(() => lengthOfStayLabels([{ hours: 5, label: 1 }], { compat: 'other' as 'published' })).toThrow(/compat/);
});
