import { metrics } from '../../../src/data/health';
import { decompensationLoss, inHospitalMortalityLoss, lengthOfStayLoss } from '../../../src/data/health/losses';
import { fixtureJson } from './fixtures';

interface Golden {
  binary: { y: number[]; p: number[]; expected: Record<string, number> }[];
  multiclass: { classes: number[]; p: number[][]; expected: Record<string, number> }[];
  loss: { name: string; y: unknown; p: unknown; mask?: unknown; expected: number }[];
}
const golden = fixtureJson<Golden>('metrics/metrics.json');

function shaped(nested: unknown): { data: number[]; dims: number[] } {
  const dims: number[] = [];
  for (let x = nested; Array.isArray(x); x = x[0]) dims.push(x.length);
  return { data: (nested as unknown[]).flat(Number.POSITIVE_INFINITY) as number[], dims };
}

test.each(golden.binary)('binary metrics to six decimals', ({ y, p, expected }) => {
  const got = metrics.binary(y, p);
  expect(Math.abs(got.auroc - expected.AUROC!)).toBeLessThanOrEqual(5.01e-7);
  expect(Math.abs(got.auprc - expected.AUPRC!)).toBeLessThanOrEqual(5.01e-7);
  expect(Math.abs(got.minSensitivityPrecision - expected['Min(Se, P+)']!)).toBeLessThanOrEqual(5.01e-7);
});

test.each(golden.multiclass)('multiclass metrics', ({ classes, p, expected }) => {
  const got = metrics.multiclass(classes, p);
  expect(Math.abs(got.kappa - expected.Kappa!)).toBeLessThan(1e-12);
  expect(Math.abs(got.microAuroc - expected['Micro AUROC']!)).toBeLessThan(1e-12);
  expect(Math.abs(got.macroAuroc - expected['Macro AUROC']!)).toBeLessThan(1e-12);
});

test.each(golden.loss)('loss $name to 1e-9', ({ name, y, p, mask, expected }) => {
  const got = name.startsWith('ihm')
    ? inHospitalMortalityLoss(shaped(y), shaped(p))
    : name.startsWith('dp')
      ? decompensationLoss(shaped(y), shaped(p), shaped(mask))
      : lengthOfStayLoss(shaped(y), shaped(p), shaped(mask), 'published');
  expect(Math.abs(got - expected)).toBeLessThan(1e-9);
});

test('the corrected length-of-stay loss is the cross entropy of a valid step', () => {
  const y = { data: [1, 0, 0, 1, 0, 1], dims: [1, 3, 2] };
  const p = { data: [0.5, 0.5, 0.25, 0.75, 0.9, 0.1], dims: [1, 3, 2] };
  const got = lengthOfStayLoss(y, p, { data: [1, 1, 0], dims: [1, 3] });
  expect(Math.abs(got - (Math.log(2) - Math.log(0.75)) / 2)).toBeLessThan(1e-6);
});

test('shapes are checked', () => {
  expect(() => inHospitalMortalityLoss({ data: [1], dims: [1, 1] }, { data: [1, 0], dims: [2, 1] })).toThrow(
    /loss: probabilities: expected \[1, 1\], got \[2, 1\]/,
  );
  const three = { data: [1, 0], dims: [1, 2, 1] };
  expect(() => decompensationLoss(three, three, { data: [1], dims: [1, 1] })).toThrow(/loss: mask/);
});
