/** The health functions given nothing, or something else than they take: an HPformerError, never a TypeError of the language. */
import {
  Calibration,
  decompensationLabels,
  discretize,
  extractSubject,
  lengthOfStayLabels,
  metrics,
  Normalizer,
  reliability,
} from '../../../src/data/health';

const csv = 'Hours,Heart Rate\n0.5,80\n1.5,90\n';
const rows = new Float64Array(76);
const sample = [{ hours: 5, label: 0 }];

test.each<[string, (value: never) => unknown, string]>([
  ['discretize', (v) => discretize(v), 'episode: expected the text of an episode file, got '],
  ['Normalizer.fit', (v) => Normalizer.fit(v), 'normalizer: fit: expected an iterable of episodes, got '],
  ['Normalizer.fit of', (v) => Normalizer.fit([v]), 'normalizer: expected rows of numbers, got '],
  ['Normalizer.apply', (v) => Normalizer.fit([rows]).apply(v), 'normalizer: expected rows of numbers, got '],
  ['Normalizer.fromJSON', (v) => Normalizer.fromJSON(v), 'normalizer: expected the JSON of a normalizer, got '],
  ['metrics.binary labels', (v) => metrics.binary(v, [0.5]), 'metrics: labels: expected a list of numbers, got '],
  ['metrics.binary scores', (v) => metrics.binary([0, 1], v), 'metrics: scores: expected a list of numbers, got '],
  [
    'metrics.multiclass labels',
    (v) => metrics.multiclass(v, [[0.5]]),
    'metrics: labels: expected a list of numbers, got ',
  ],
  [
    'metrics.multiclass scores',
    (v) => metrics.multiclass([0, 1], v),
    'metrics: scores: expected a list of numbers, got ',
  ],
  ['reliability', (v) => reliability(v, v), 'reliability: labels: expected a list of numbers, got '],
  ['Calibration.fit', (v) => Calibration.fit('platt', v, v), 'calibration: labels: expected a list of numbers, got '],
  ['extractSubject', (v) => extractSubject(v), 'extractSubject: expected { events, stays, diagnoses }, got '],
  ['decompensationLabels', (v) => decompensationLabels(v), 'decompensation labels: expected at least one sample, got '],
])('%s', (_, action, message) => {
  for (const value of [undefined, null, 7]) {
    expect(() => action(value as never)).toThrow(`${message}${value}`);
    expect(() => action(value as never)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_HPFORMER_(INPUT|TYPE)$/) }),
    );
  }
});

test('options of null are no options, but for those whose names are checked', () => {
  const none = null as never;
  expect(decompensationLabels(sample, none)).toEqual(decompensationLabels(sample));
  expect(lengthOfStayLabels(sample, none)).toEqual(lengthOfStayLabels(sample));
  expect(Normalizer.fit([rows], none).toJSON()).toEqual(Normalizer.fit([rows]).toJSON());
  expect(() => discretize(csv, none)).toThrow('discretize: options: expected an object, got null');
});

test('bins: none is a plain zero, too many name their number', () => {
  expect(Object.is(discretize(csv, { end: 0 }).dims[0], 0)).toBe(true);
  expect(() => discretize(csv, { step: 1e-8 })).toThrow(
    /expected at most 262144 bins, got 150000000: 1.5 hours in steps of 1e-8/,
  );
  // 21 bytes that took gigabytes and many seconds.
  const endless = 'Hours,Glucose,pH\n4275913,,\n';
  expect(() => discretize(endless)).toThrow(
    'episode: expected at most 262144 bins, got 4275913: 4275913 hours in steps of 1',
  );
  expect(discretize('Hours,pH\n262144,7.4\n').dims[0]).toBe(2 ** 18);
});
