/** Which repetitions count where AMX flips between two states: pure logic, no AMX needed. */
import fc from 'fast-check';
import { besideRepetition, inFastState } from '../../bench/src/fastState';
import { fastSummary } from '../../bench/src/measure';
import { seed } from '../seed';

test('two states: those above the gap', () => {
  expect(inFastState([1.9, 0.6, 1.85, 0.61, 1.95])).toEqual([true, false, true, false, true]);
});

test('one state: all of them', () => {
  expect(inFastState([1.9, 1.85, 1.8, 1.95])).toEqual([true, true, true, true]);
  expect(inFastState([0.6, 0.63])).toEqual([true, true]);
  expect(inFastState([1])).toEqual([true]);
  expect(inFastState([])).toEqual([]);
});

test('a probe that failed is never fast', () => {
  expect(inFastState([1.9, 0, Number.NaN, 1.8])).toEqual([true, false, false, true]);
  expect(inFastState([0, 0])).toEqual([false, false]);
});

test('a flip in the middle of a repetition makes it a slow one', () => {
  expect(besideRepetition([1.9, 0.6])).toBe(0.6);
  expect(besideRepetition([0.6, 1.9])).toBe(0.6);
});

test('any two states with noise below the gap are told apart, in any order', () => {
  const noisy = (level: number) => fc.double({ min: level * 0.95, max: level * 1.05, noNaN: true });
  fc.assert(
    fc.property(
      fc
        .double({ min: 0.1, max: 5, noNaN: true })
        .chain((slow) =>
          fc.tuple(
            fc.array(noisy(slow), { minLength: 1, maxLength: 8 }),
            fc.array(noisy(slow * 2), { minLength: 1, maxLength: 8 }),
            fc.nat(),
          ),
        ),
      ([slow, fast, turn]) => {
        const samples = [...slow.map((x) => [x, false] as const), ...fast.map((x) => [x, true] as const)];
        const turned = samples.map((_, i) => samples[(i * 7 + turn) % samples.length]!);
        // Seven and the length share no factor, or the order stays.
        const order = samples.length % 7 === 0 ? samples : turned;
        expect(inFastState(order.map(([x]) => x))).toEqual(order.map(([, isFast]) => isFast));
      },
    ),
    { seed },
  );
});

test('the median is over fast repetitions only, and says how many there were', () => {
  const repetitions = [[10, 11], [30, 31, 32], [12, 13], [29]];
  const around: [number, number][] = [
    [2, 2],
    [2, 0.7],
    [1.9, 2.1],
    [0.7, 0.7],
  ];
  const timing = fastSummary(repetitions, around);
  expect(timing.calls).toBe(4);
  expect(timing.median).toBe(12);
  expect(timing.probe).toEqual({ perRepetition: [2, 0.7, 1.9, 0.7], fast: [true, false, true, false], median: 2 });
});

test('where the probe failed throughout, every repetition counts and none is called fast', () => {
  const timing = fastSummary(
    [[1], [2], [3]],
    [
      [0, 0],
      [0, 0],
      [0, 0],
    ],
  );
  expect([timing.calls, timing.median, timing.probe!.fast]).toEqual([3, 2, [false, false, false]]);
});
