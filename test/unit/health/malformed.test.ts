/** Every kind of malformed input that a user meets, through `prepareArrays`: the error names file, line and column; lenient counts it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { healthTasks, prepareArrays } from '../../../src/data/health';
import { episodeHeader } from '../../../src/data/health/schema';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-malformed-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const task = healthTasks['in-hospital-mortality'];
const at = (name: string) => join(folder, name);
/** A row with the given fields by column. */
const row = (hours: string, fields: Record<string, string>) =>
  episodeHeader
    .split(',')
    .map((name, c) => (c === 0 ? hours : (fields[name] ?? '')))
    .join(',');
const good = row('0.5', { 'Heart Rate': '80' });
const file = (...rows: string[]) => [episodeHeader, good, ...rows, ''].join('\n');
const reading = (rest: object) =>
  [
    { stay: 'a', hours: 1, variable: 'Heart Rate', value: 80 },
    { stay: 'a', hours: 2, variable: 'Heart Rate', value: 81, ...rest },
  ]
    .map((r) => JSON.stringify(r))
    .join('\n');

const cases: [what: string, name: string, content: string, message: RegExp][] = [
  ['a row too short', 'a.csv', file('1,2'), /a\.csv line 3: expected 18 fields as in the header, got 2$/],
  ['a row too long', 'a.csv', file(`${good},`), /a\.csv line 3: expected 18 fields as in the header, got 19$/],
  ['an empty line', 'a.csv', file('', good), /a\.csv line 3, column "Hours": expected a number of hours, got ""$/],
  [
    'text as time',
    'a.csv',
    file(row('noon', {})),
    /a\.csv line 3, column "Hours": expected a number of hours, got "noon"$/,
  ],
  [
    'times going back',
    'a.csv',
    file(row('2', {}), row('1.5', {})),
    /a\.csv line 4, column "Hours": expected times that do not go back, got 1\.5 after 2$/,
  ],
  [
    'text as number',
    'a.csv',
    file(row('1', { Glucose: 'high' })),
    /a\.csv line 3, column "Glucose": expected a number, got "high"$/,
  ],
  [
    'an unknown category',
    'a.csv',
    file(row('1', { 'Glascow coma scale total': '15.0' })),
    /a\.csv line 3, column "Glascow coma scale total": expected one of "11", .*, got "15\.0"$/,
  ],
  [
    'a category in another case',
    'a.csv',
    file(row('1', { 'Glascow coma scale verbal response': 'oriented' })),
    /line 3, column "Glascow coma scale verbal response": expected one of .*, got "oriented"$/,
  ],
  [
    'a value of no variable',
    'a.csv',
    file(good).replace('pH', 'Lactate').replace(/,$/m, ',2.1'),
    /a\.csv line 2, column "Lactate": expected the name of one of the 17 variables, with the value "2\.1"$/,
  ],
  ['no header', 'a.csv', `${good}\n`, /a\.csv line 1: expected the first column "Hours", got "0\.5"$/],
  ['no rows', 'a.csv', `${episodeHeader}\n`, /a\.csv: expected at least one row after the header, got none$/],
  [
    'an unknown unit',
    'a.jsonl',
    reading({ unit: 'furlong' }),
    /a\.jsonl line 2, column "unit": unit is not known, got "furlong"$/,
  ],
  [
    'text as time, JSON',
    'a.jsonl',
    reading({ hours: 'noon' }),
    /line 2, column "hours": hours is no number, got "noon"$/,
  ],
  [
    'an unknown variable',
    'a.jsonl',
    reading({ variable: 'Pulse' }),
    /line 2, column "variable": variable is not known, got "Pulse"$/,
  ],
  [
    'text as number, JSON',
    'a.jsonl',
    reading({ value: 'fast' }),
    /line 2, column "value": value is not a number, got "fast"$/,
  ],
  [
    'an unknown category, JSON',
    'a.jsonl',
    reading({ variable: 'Glascow coma scale total', value: 16 }),
    /line 2, column "value": category is not known, got 16$/,
  ],
  ['no stay', 'a.jsonl', reading({ stay: null }), /line 2, column "stay": stay is no text or number, got null$/],
  ['no JSON', 'a.jsonl', `${reading({})}\n{"stay`, /a\.jsonl line 3: line is no JSON, got /],
];

test.each(cases)('%s', async (_, name, content, message) => {
  writeFileSync(at(name), content);
  const run = (lenient: boolean) =>
    prepareArrays({ task, inputs: [at(name)], out: at('out'), lenient, unknown: lenient ? 'skip' : 'error' });
  const error = await run(false).catch((e: Error & { code?: string }) => e);
  expect(error).toMatchObject({
    name: 'HPformerError',
    code: 'ERR_HPFORMER_INPUT',
    message: expect.stringMatching(message),
  });
  // Beside a good stay, the lenient way counts what it leaves out, and where.
  writeFileSync(at('good.csv'), file());
  const manifest = await prepareArrays({
    task,
    inputs: [at('good.csv'), at(name)],
    out: at('out'),
    lenient: true,
    unknown: 'skip',
  });
  const left = Object.values(manifest.dropped);
  expect(left.reduce((sum, { count }) => sum + count, 0) + manifest.skippedReadings).toBe(1);
  for (const { examples } of left) expect(examples[0]).toContain(at(name));
});
