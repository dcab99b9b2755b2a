import { PythonRandom, pythonFloat, pythonRepr, pythonStrip, roundHalfEven } from '../../../src/data/health/python';

describe('numbers as Python reads and writes them', () => {
  // Outcomes of CPython 3.11.
  test.each<[string, number]>([
    [' 1.5\n', 1.5],
    ['1_000.2_5', 1000.25],
    ['.5', 0.5],
    ['7.', 7],
    ['+1e3', 1000],
    ['1e400', Number.POSITIVE_INFINITY],
    ['-Infinity', Number.NEGATIVE_INFINITY],
    ['\u0663\u0664', 34],
    ['\uff11\uff12.\uff15', 12.5],
    ['\u{1d7d9}\u{1d7ce}', 10],
    ['\x1c2\u3000', 2],
  ])('float(%j) = %d', (text, value) => {
    expect(pythonFloat(text)).toBe(value);
  });

  test('-0.0 and nan', () => {
    expect(pythonFloat('-0.0')).toBe(-0);
    expect(pythonFloat('NaN')).toBeNaN();
  });

  test.each([
    '',
    ' ',
    '.',
    '1__0',
    '_1',
    '1_',
    '0x10',
    '1e',
    '1 2',
    '80 bpm',
    'infin',
    '1._5',
    '\ufeff1',
    'e5',
    '1e5_',
  ])('float(%j) is a ValueError', (text) => {
    expect(pythonFloat(text)).toBeUndefined();
  });

  test.each<[number, string]>([
    [0.1, '0.1'],
    [168, '168.0'],
    [-0, '-0.0'],
    [0.0001, '0.0001'],
    [0.00001, '1e-05'],
    [1.5e-7, '1.5e-07'],
    [123456789012345680, '1.2345678901234568e+17'],
    [1e15, '1000000000000000.0'],
    [1e16, '1e+16'],
    [1e22, '1e+22'],
    [0.45249999999999996, '0.45249999999999996'],
    [5e-324, '5e-324'],
  ])('repr(%d) = %s', (value, text) => {
    expect(pythonRepr(value)).toBe(text);
  });

  test('strip and round', () => {
    expect(pythonStrip('\r\n a b\t')).toBe('a b');
    expect([0.5, 1.5, 2.5, 2.4, 2.6].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  });

  test('random.seed(49297); random.shuffle(list(range(10)))', () => {
    const list = [...Array(10).keys()];
    new PythonRandom(49297).shuffle(list);
    expect(list).toEqual([5, 3, 1, 7, 4, 2, 0, 9, 6, 8]);
  });
});
