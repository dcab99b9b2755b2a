/** What is noticed of scores as they pass. */
import { ScoreWatch } from '../../../src/cli/scoreWatch';

test('each name that came before is counted, among many', () => {
  const watch = new ScoreWatch(2);
  const names = Array.from({ length: 5000 }, (_, i) => `stay ${i}`);
  for (let from = 0; from < 5000; from += 100) watch.add(names.slice(from, from + 100), new Float64Array(200));
  expect(watch.warnings('episodes')).toBe('');
  watch.add([...names].reverse(), new Float64Array(10000));
  watch.add([7, '7', 8], [0, 0, Number.NaN, Number.POSITIVE_INFINITY, 0, 1]);
  expect([watch.rows, watch.warnings('episodes')]).toEqual([
    10003,
    'note: 5001 of 10003 episodes have the name of an earlier one, first: stay 4999\n' +
      'note: 1 of 10003 episodes have a score that is no number (a reading was NaN or infinite), first: 7\n',
  ]);
});
