/** The byte parser and the one-pass fill against the plain ones that they stand for. */
import fc from 'fast-check';
import { episodeFromBytes, episodeFromText, healthVariables, synthesizeEpisode } from '../../../src/data/health';
import { parseEpisodeBytes } from '../../../src/data/health/byteEpisode';
import { decimalBytes } from '../../../src/data/health/decimal';
import {
  binReadings,
  checkDiscretizeOptions,
  EpisodeText,
  type ReadingSource,
} from '../../../src/data/health/discretize';
import { episodeHeader } from '../../../src/data/health/schema';
import { seed } from '../../seed';

const read = (text: string) => {
  const bytes = Buffer.from(`x${text},`);
  return decimalBytes(bytes, 1, bytes.length - 1);
};

describe('decimals', () => {
  test.each(['', '.', '-', '-.', '1e3', '+1', '1_0', ' 1', '1 ', 'nan', '1.2.3', '0x1', '1234567890123456789'])(
    'left to others: %j',
    (text) => expect(read(text)).toBeUndefined(),
  );

  test.each(['0', '-0', '5.', '.5', '-.5', '007', '0.000', '9007199254740993', '0.3', '1.8399999999999999'])(
    'as Number reads them: %s',
    (text) => expect(read(text)).toBe(Number(text)),
  );

  test('any digits and point, to the last bit', () => {
    let certain = 0;
    const digits = fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 18 }).map((list) => list.join(''));
    fc.assert(
      fc.property(fc.boolean(), digits, digits, (minus, whole, part) => {
        const text = `${minus ? '-' : ''}${whole}.${part}`;
        const value = read(text);
        if (value === undefined) return;
        certain++;
        expect(value).toBe(Number(text));
      }),
      { seed, numRuns: 2000 },
    );
    // Up to 18 digits must be read here, not left to the slower way.
    expect(certain).toBeGreaterThan(800);
  });

  test("the shortest text of any double, as Python's repr writes hours", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 5000, noNaN: true }), (hours) => {
        expect(read(String(hours))).toBe(hours);
      }),
      { seed, numRuns: 2000 },
    );
  });

  test('halfway cases and their neighbours', () => {
    // (2k + 1) / 2^n are decimal fractions that lie exactly between two doubles of 53 bits when k has 53 bits.
    for (let n = 1; n <= 8; n++) {
      for (const k of [2n ** 52n, 2n ** 52n + 1n, 2n ** 53n - 1n]) {
        const scaled = (2n * k + 1n) * 5n ** BigInt(n);
        for (const off of [-1n, 0n, 1n]) {
          const digits = String(scaled + off).padStart(n + 1, '0');
          const text = `${digits.slice(0, -n)}.${digits.slice(-n)}`;
          const value = read(text);
          if (value !== undefined) expect(value).toBe(Number(text));
        }
      }
    }
  });
});

const mostly = (usual: string[], odd: string[]) =>
  fc.oneof({ arbitrary: fc.constantFrom(...usual), weight: 9 }, { arbitrary: fc.constantFrom(...odd), weight: 1 });

/** Everything a source says. */
function contents(source: ReadingSource) {
  return Array.from(source.hours, (hours, row) => {
    const readings: [number, number][] = [];
    source.read(row, (variable, value) => readings.push([variable, value]));
    return { hours, readings, place: source.place(row) };
  });
}

const value = (variable: number): fc.Arbitrary<string> => {
  const { categories } = healthVariables[variable]!;
  const usual = categories
    ? fc.constantFrom(...categories)
    : fc.integer({ min: -100, max: 4000 }).map((n) => String(n / 10));
  return fc.oneof(
    { arbitrary: fc.constant(''), weight: 120 },
    { arbitrary: usual, weight: 80 },
    { arbitrary: fc.constantFrom('1e2', ' 7', 'nan', '1_0', '٣', 'Obeys commands', '"4"', 'x'), weight: 1 },
  );
};

describe('episode files', () => {
  test('made-up stays need no other reader', () => {
    for (const text of [
      synthesizeEpisode(1).text,
      synthesizeEpisode(2, { hours: 400 }).text.replaceAll('\n', '\r\n'),
    ]) {
      const plain = contents(new EpisodeText(text, 'f', false));
      const fast = parseEpisodeBytes(Buffer.from(text), 'f');
      expect(contents(fast!)).toEqual(plain);
      expect(contents(parseEpisodeBytes(Buffer.from(text.replace(/\r?\n$/, '')), 'f')!)).toEqual(plain);
    }
  });

  test('whatever the bytes, the same readings or the same error as from text', () => {
    let plain = 0;
    const row = fc.tuple(
      fc.nat(216000).map((n) => n / 3600),
      fc.tuple(...healthVariables.map((_, v) => value(v))),
    );
    const file = fc.record({
      rows: fc.array(row, { minLength: 0, maxLength: 6 }),
      end: mostly(['\n', '\r\n'], ['\r', '\n\n']),
      header: mostly(
        [episodeHeader],
        [`\ufeff${episodeHeader}`, `${episodeHeader} `, episodeHeader.replace('pH', 'PH')],
      ),
      last: mostly(['', '\n', '\r\n'], [' ', ',', '\r']),
    });
    const outcome = (open: () => ReadingSource) => {
      try {
        return contents(open());
      } catch (error) {
        return (error as Error).message;
      }
    };
    fc.assert(
      fc.property(file, fc.constantFrom('error' as const, 'skip' as const), ({ rows, end, header, last }, unknown) => {
        const lines = [header, ...rows.map(([hours, fields]) => [hours, ...fields].join(','))];
        const text = lines.join(end) + last;
        if (parseEpisodeBytes(Buffer.from(text), 'f')) plain++;
        const fast = outcome(() => episodeFromBytes('id', 'f', Buffer.from(text)).open(unknown));
        expect(fast).toEqual(outcome(() => episodeFromText('id', 'f', text).open(unknown)));
      }),
      { seed, numRuns: 300 },
    );
    expect(plain).toBeGreaterThan(20);
  });

  test('filling in one pass gives the bins of the general way', () => {
    const rows = fc.array(
      fc.tuple(
        fc.double({ min: 0, max: 7.99, noNaN: true }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 16 }), fc.nat(1)), { maxLength: 5 }),
      ),
      { minLength: 1, maxLength: 12 },
    );
    fc.assert(
      fc.property(rows, fc.boolean(), fc.constantFrom(0.5, 1, 3), (made, masks, step) => {
        made.sort(([a], [b]) => a - b);
        const source = (hours: number[]): ReadingSource => ({
          hours,
          read: (i, write) => {
            for (const [variable, v] of made[i]?.[1] ?? []) write(variable, v);
            return 0;
          },
          place: String,
        });
        const hours = made.map(([h]) => h);
        const options = checkDiscretizeOptions({ end: 8, step, masks });
        const fast = binReadings(source(hours), options);
        // A row after the end counts for nothing, but one that goes back over a bin's border sends all rows the general way.
        const border = step * Math.ceil(hours.at(-1)! / step + 1e-3);
        if (border + step > 8) return;
        const general = binReadings(source([...hours, border + 1.5e-6, border + 0.9e-6]), options);
        expect(general.values).toEqual(fast.values);
        expect(general.skipped).toBe(fast.skipped);
      }),
      { seed, numRuns: 200 },
    );
  });
});
