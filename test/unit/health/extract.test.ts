import { parseCsv } from '../../../src/data/health/csv';
import { extractSubject, parseTime } from '../../../src/data/health/extract';
import { fixtureJson, fixtureText } from './fixtures';

const golden = {
  events: fixtureText('events/events.csv'),
  stays: fixtureText('events/stays.csv'),
  diagnoses: fixtureText('events/diagnoses.csv'),
};
const names = [
  'episode1.csv',
  'episode1_timeseries.csv',
  'decompensation_listfile.csv',
  'in_hospital_mortality_listfile.csv',
  'length_of_stay_listfile.csv',
];
const head = 'subject_id,hadm_id,stay_id,charttime,itemid,value,valueuom';
const event = (item: number, value: string, unit = '', time = '2150-03-01 12:20:00', stay = '7001', adm = '30006') =>
  `30001,${adm},${stay},${time},${item},${value},${unit}`;
const extract = (events: string[], extra: Partial<Parameters<typeof extractSubject>[0]> = {}) =>
  extractSubject({ ...golden, events: [head, ...events, ''].join('\n'), ...extra });

describe('extractSubject', () => {
  test.each(names)('%s byte for byte', (name) => {
    const { files } = extractSubject({ ...golden, compat: 'published' });
    expect(files[name]).toBe(fixtureText(`events/expected_${name}`));
    expect(files[`expected_${name}`]).toBe(files[name]);
    expect(Object.keys(files).sort()).toEqual([...names].sort());
  });

  // Made-up subjects run through the published scripts under pandas 1.5.3: several stays, text and number columns, quoted values.
  test.each(
    fixtureJson<{ case: string; events: string; stays: string; diagnoses: string; files: Record<string, string> }[]>(
      'subjects.json',
    ),
  )('as the published scripts: $case', ({ events, stays, diagnoses, files }) => {
    expect(extractSubject({ events, stays, diagnoses, compat: 'published' }).files).toEqual(files);
  });

  test.each(['10001', '1e9', '1e308'])('a stay of %s days is refused: the lists would fill the memory', (los) => {
    const [names, row, ...rest] = golden.stays.split('\n');
    const at = names!.split(',').indexOf('los');
    const stays = (days: string) => [names, row!.split(',').with(at, days).join(','), ...rest].join('\n');
    for (const compat of ['published', 'corrected'] as const)
      expect(() => extractSubject({ ...golden, stays: stays(los), compat })).toThrow(
        /column "los": expected at most 10000 days/,
      );
    expect(extractSubject({ ...golden, stays: stays('400'), compat: 'corrected' }).dropped).toBeDefined();
  });

  test('corrected: oxygen fraction, Fahrenheit below 79, number order, diagnoses of digits only', () => {
    const events = [
      event(223835, '0.4', 'None'),
      event(223761, '77', '?F'),
      event(220045, '85', 'bpm'),
      event(220045, '115', 'bpm'),
      event(198, '15.0', 'points'),
    ];
    const row = (compat: 'published' | 'corrected') => {
      const { files } = extract([...events, event(220739, 'None')], { compat });
      const [names, values] = files['episode1_timeseries.csv']!.split('\n').map((line) => line.split(','));
      const at = (name: string) => values![names!.indexOf(name)];
      return [
        at('Fraction inspired oxygen'),
        at('Temperature'),
        at('Heart Rate'),
        at('Glascow coma scale total'),
        files['episode1.csv']!.split('\n')[1]!
          .split(',')
          .slice(8)
          .filter((x) => x === '1').length,
      ];
    };
    expect(row('published')).toEqual(['0.004', '77.0', '85', '15.0', 0]);
    expect(row('corrected')).toEqual(['0.4', '25.0', '115', '15', 2]);
    expect(extract(events).files).toEqual(extract(events, { compat: 'corrected' }).files);
  });

  test('what is left out is counted, or stops the published run', () => {
    const events = [
      event(220045, '90'),
      event(220045, '90', '', '2150-03-01 13:20:00', '7001', ''),
      event(220045, '90', '', '2150-03-01 13:20:00', '7001', '1'),
      event(220045, '90', '', '2150-03-01 13:20:00', '7002'),
      event(220045, ''),
      event(1, '5'),
      event(50931, 'ERROR'),
      event(223761, 'warm'),
      event(220739, 'asleep'),
    ];
    expect(extract(events).dropped).toEqual({
      'no admission': 1,
      'admission not listed': 1,
      'stay of another admission': 1,
      'no value': 1,
      'item of no variable': 1,
      'Glucose: not a number': 1,
      'Temperature: not a number': 1,
      'Glascow coma scale eye opening: unknown category': 1,
    });
    expect(() => extract(events, { compat: 'published' })).toThrow(
      'events line 9, column "value": expected a number for Temperature, got "warm"',
    );
  });

  test('malformed tables are named', () => {
    expect(() => extractSubject({ ...golden, events: 'a,b\n1,2\n' })).toThrow(
      /events line 1: expected a column "hadm_id"/,
    );
    expect(() => extract(['1,2'])).toThrow(/events line 2: expected 7 fields .*got 2/);
    expect(() => extractSubject({ ...golden, stays: golden.stays.replace('2150-03-01 10:20:00', 'soon') })).toThrow(
      /stays line 2, column "intime": expected a time .*got "soon"/,
    );
    expect(() => extractSubject({ ...golden, stays: golden.stays + golden.stays.split('\n')[1] })).toThrow(/once/);
    expect(() => extract([event(220045, '1')], { compat: 'old' as 'published' })).toThrow(/compat/);
  });
});

test('times without a zone', () => {
  expect(parseTime('1970-01-02 00:00:01.5')).toBe(86401500);
  expect(parseTime('1970-01-02')).toBe(86400000);
  for (const text of ['1970-02-30', '1970-01-01 25:00', 'x', '1970-01-01 00:61:00'])
    expect(parseTime(text)).toBeUndefined();
});

test('CSV with quotes, line ends and blank lines', () => {
  const table = parseCsv('\ufeffa,b\r\n"x,""y"" \n",2\n\n3,\n', 'f');
  expect(table.rows).toEqual([
    ['x,"y" \n', '2'],
    ['3', ''],
  ]);
  expect(table.lines).toEqual([2, 5]);
  expect(() => parseCsv('a\n"x', 'f')).toThrow(/f line 2: expected a closing quote/);
  expect(parseCsv('a,b', 'f').rows).toEqual([]);
});
