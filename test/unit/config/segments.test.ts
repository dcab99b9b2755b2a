import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { DeepPartial } from '../../../src/config/merge';
import { presets } from '../../../src/config/presets';
import { segmentsOf } from '../../../src/config/segments';
import type { HPformerConfig } from '../../../src/config/types';
import { seed } from '../../seed';
import { errorOf, folder } from '../checkpoint/support';

type Rule = DeepPartial<HPformerConfig['segments']>;
const config = (segments: Rule) => presets.listops({ segments: segments as HPformerConfig['segments'] });
const plan = JSON.parse(readFileSync(join(folder, 'segment-plan.json'), 'utf8')) as Record<
  string,
  [number, number, number, number][]
>;

describe('segmentsOf', () => {
  test.each(['1', '2', '3', '4'])('is the published rule for times %s', (times) => {
    const rows = plan[times]!;
    expect(rows.length).toBeGreaterThan(100);
    const wrong = rows.filter(([steps, count, length, padding]) => {
      const model = config({ times: Number(times) });
      if (count === 0) return errorOf(() => segmentsOf(model, steps)).code !== 'ERR_HPFORMER_SHAPE';
      const got = segmentsOf(model, steps);
      return got.count !== count || got.length !== length || got.padding !== padding;
    });
    expect(wrong).toEqual([]);
  });

  test('takes the number of segments from `steps`, whatever the length', () => {
    expect(segmentsOf(config({ steps: 48 }), 20)).toEqual({ count: 4, length: 5, padding: 0 });
    expect(segmentsOf(config({ steps: 504 }), 504)).toEqual({ count: 7, length: 72, padding: 0 });
  });

  test.each([
    [21, /^steps: expected a length that 4 segments divide \(nearest: 20 or 24\), got 21$/],
    [3, /expected a length of at least 4, for 4 segments \(nearest: 4\), got 3/],
  ])('names the nearest good lengths of %i', (steps, message) => {
    const { code, message: got } = errorOf(() => segmentsOf(config({ steps: 48 }), steps));
    expect(code).toBe('ERR_HPFORMER_SHAPE');
    expect(got).toMatch(message);
  });

  test('names the nearest good lengths where the published rule divides by zero', () => {
    expect(errorOf(() => segmentsOf(config({ times: 2 }), 3, 'tokens')).message).toMatch(/^tokens: .*nearest: 2 or 4/);
    // No length below 12 is accepted by four times ⌊ln T⌋ + 1 segments.
    for (const steps of [1, 2, 3, 11])
      expect(errorOf(() => segmentsOf(config({ times: 4 }), steps)).message).toMatch(/\(nearest: 12\), got \d+$/);
    expect(errorOf(() => segmentsOf(config({ times: 3 }), 2)).message).toMatch(
      /of at least 3, for 3 segments \(nearest: 6\)/,
    );
    expect(segmentsOf(config({ times: 2 }), 2)).toEqual({ count: 2, length: 1, padding: 0 });
    expect(errorOf(() => segmentsOf(config({ times: 2 }), 3)).message).toMatch(/\(nearest: 2 or 4\)/);
  });

  test('over valid pads what `steps` does not divide and cuts short sequences step by step', () => {
    const model = config({ steps: 48, over: 'valid' });
    expect(segmentsOf(model, 21)).toEqual({ count: 5, length: 5, padding: 4 });
    expect(segmentsOf(model, 3)).toEqual({ count: 3, length: 1, padding: 0 });
    expect(segmentsOf(model, 1)).toEqual({ count: 1, length: 1, padding: 0 });
  });

  test("is the paper's rule", () => {
    // c = ceil(ln 48) = 4, b = 12, S = c + 1: one all-zero segment.
    expect(segmentsOf(config({ rule: 'paper' }), 48)).toEqual({ count: 5, length: 12, padding: 12 });
    expect(segmentsOf(config({ rule: 'paper' }), 1)).toEqual({ count: 2, length: 1, padding: 1 });
    expect(segmentsOf(config({ rule: 'paper' }), 50)).toEqual({ count: 5, length: 12, padding: 10 });
    expect(segmentsOf(config({ rule: 'paper', steps: 1000 }), 14)).toEqual({ count: 8, length: 2, padding: 2 });
    expect(segmentsOf(config({ rule: 'paper', steps: 1000 }), 3)).toEqual({ count: 8, length: 1, padding: 5 });
  });

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('refuses a length of %p', (steps) => {
    expect(errorOf(() => segmentsOf(config({}), steps)).code).toBe('ERR_HPFORMER_SHAPE');
  });

  test(`covers every step with whole segments (SEED=${seed})`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom('upstream' as const, 'paper' as const),
        fc.integer({ min: 1, max: 4 }),
        fc.option(fc.integer({ min: 1, max: 3000 })),
        fc.constantFrom('padded' as const, 'valid' as const),
        fc.integer({ min: 1, max: 100000 }),
        (rule, times, steps, over, length) => {
          const model = config({ rule, times: rule === 'paper' ? 1 : times, steps, over });
          let cut: ReturnType<typeof segmentsOf>;
          try {
            cut = segmentsOf(model, length);
          } catch {
            // Refused: then the lengths that the message names are accepted.
            const { message } = errorOf(() => segmentsOf(model, length));
            const named = /nearest: ([\d or]+)\)/.exec(message)![1]!.split(' or ').map(Number);
            for (const good of named) segmentsOf(model, good);
            return;
          }
          expect(cut.count * cut.length).toBe(length + cut.padding);
          expect(cut.padding).toBeGreaterThanOrEqual(0);
          expect(cut.length).toBeGreaterThanOrEqual(1);
        },
      ),
      { seed, numRuns: 3000 },
    );
  });
});
