/**
 * Parquet and Arrow tables, in child processes: a loader hook puts stand-ins in the place of the optional packages, with the two
 * functions that are called and JSON for the bytes. What is ours (both table shapes, order, refusals) is tested as it runs.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../../skips';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-columnar-'));
  const url = (name: string) => JSON.stringify(pathToFileURL(join(folder, name)).href);
  writeFileSync(
    join(folder, 'hyparquet.mjs'),
    'export const parquetReadObjects = async ({ file }) => JSON.parse(Buffer.from(file).toString());\n',
  );
  writeFileSync(
    join(folder, 'apache-arrow.mjs'),
    `export const tableFromIPC = (bytes) => {
  const rows = JSON.parse(Buffer.from(bytes).toString());
  return { schema: { fields: Object.keys(rows[0] ?? {}) }, toArray: () => rows.map((row) => ({ toJSON: () => row })) };
};\n`,
  );
  writeFileSync(
    join(folder, 'hooks.mjs'),
    `const peers = { hyparquet: ${url('hyparquet.mjs')}, 'apache-arrow': ${url('apache-arrow.mjs')} };
export const resolve = (name, context, next) => (name in peers ? { url: peers[name], shortCircuit: true } : next(name, context));\n`,
  );
  writeFileSync(
    join(folder, 'register.mjs'),
    `import { register } from 'node:module';\nregister(${url('hooks.mjs')});\n`,
  );
  writeFileSync(
    join(folder, 'read.cjs'),
    `const { openEpisodes, DropReport } = require(${JSON.stringify(join(root, 'dist', 'data', 'health'))});
const { healthVariables } = require(${JSON.stringify(join(root, 'dist', 'data', 'health'))});
const [lenient, ...files] = process.argv.slice(2);
(async () => {
  const drops = new DropReport();
  const stays = {};
  try {
    for await (const input of openEpisodes(files, { drops, lenient: lenient === 'lenient' })) {
      const source = input.open('error');
      const rows = [];
      for (let i = 0; i < source.hours.length; i++)
        source.read(i, (variable, value) => rows.push([source.hours[i], healthVariables[variable].name, value]));
      stays[input.id] = rows;
    }
    console.log(JSON.stringify({ stays, drops: drops.toJSON() }));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code, message: error.message.replaceAll(${JSON.stringify(folder)}, '') }));
  }
})();\n`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Answer {
  stays: Record<string, [number, string, number][]>;
  drops: Record<string, { count: number }>;
  code: string;
  message: string;
}

function read(name: string, rows: unknown, lenient = false): Answer {
  const file = join(folder, name);
  writeFileSync(file, typeof rows === 'string' ? rows : JSON.stringify(rows));
  const args = ['--import', pathToFileURL(join(folder, 'register.mjs')).href, join(folder, 'read.cjs')];
  const run = spawnSync(process.execPath, [...args, lenient ? 'lenient' : 'strict', file], { encoding: 'utf8' });
  expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(run.stdout) as Answer;
}

const long = [
  { stay: 'a', hours: 0.5, variable: 'Heart Rate', value: 80 },
  { stay: 'a', hours: 1, variable: 'Glucose', value: '120.5' },
  { stay: 'a', hours: 1, variable: 'pH', value: null },
  { stay: 'a', hours: 2, variable: 'Glascow coma scale eye opening', value: '4 Spontaneously' },
  { stay: 7, hours: 3, variable: 'Heart Rate', value: 99 },
];
const wide = [
  { stay: 'a', Hours: 0.5, 'Heart Rate': 80, Glucose: null, comment: 'not a variable' },
  { stay: 'a', Hours: 1, 'Heart Rate': null, Glucose: 120.5, comment: '' },
  { stay: 'b', Hours: 0, 'Heart Rate': 61, Glucose: '' },
];

test.each(['a.parquet', 'a.arrow', 'a.feather'])('%s: a reading a row, stays one after the other', (name) => {
  const { stays, drops } = read(name, long);
  expect(Object.keys(stays).sort()).toEqual(['7', 'a']);
  expect(stays.a!.slice(0, 2)).toEqual([
    [0.5, 'Heart Rate', 80],
    [1, 'Glucose', 120.5],
  ]);
  expect(stays.a![2]!.slice(0, 2)).toEqual([2, 'Glascow coma scale eye opening']);
  expect(stays['7']).toEqual([[3, 'Heart Rate', 99]]);
  expect(drops).toEqual({});
});

test.each(['wide.parquet', 'wide.arrow'])('%s: a time a row, other columns left alone', (name) => {
  const { stays } = read(name, wide);
  expect(stays.a).toEqual([
    [0.5, 'Heart Rate', 80],
    [1, 'Glucose', 120.5],
  ]);
  expect(stays.b).toEqual([[0, 'Heart Rate', 61]]);
});

test('a table without rows has no stays', () => {
  expect(read('none.parquet', []).stays).toEqual({});
});

test.each<[string, unknown, string]>([
  ['no stay', [{ hours: 1, variable: 'pH', value: 7 }], 'row 1, column "stay": expected the name of a stay'],
  ['no time', [{ stay: 'a', variable: 'pH', value: 7 }], 'row 1, column "hours": expected a number of hours'],
  ['text as time', [long[0], { ...long[1], hours: 'noon' }], 'row 2, column "hours": .* got "noon"'],
  [
    'an unknown variable',
    [{ ...long[0], variable: 'Mood' }],
    'column "variable": expected the name of a variable.*Mood',
  ],
  [
    'text as value',
    [{ ...long[0], value: 'fast' }],
    'column "Heart Rate": expected a value of the variable, got "fast"',
  ],
])('%s: refused with its row, or left out and counted', (_, rows, message) => {
  const refused = read('bad.parquet', rows);
  expect(refused.code).toBe('ERR_HPFORMER_INPUT');
  expect(refused.message).toMatch(
    new RegExp(`^/bad\\.parquet ${message.startsWith('row') ? '' : 'row \\d+, '}${message}`),
  );
  const { drops } = read('bad.arrow', rows, true);
  expect(Object.values(drops).map(({ count }) => count)).toEqual([1]);
});

test('a stay that comes again is refused, whatever the options', () => {
  for (const lenient of [false, true]) {
    const { code, message } = read('again.parquet', [long[0], long[4], long[1]], lenient);
    expect(code).toBe('ERR_HPFORMER_INPUT');
    expect(message).toBe('/again.parquet row 3: expected the rows of a stay together, got stay "a" again');
  }
});

test('a file that the package cannot read, or that is not there', () => {
  for (const name of ['torn.parquet', 'torn.arrow']) {
    const { code, message } = read(name, 'not a table');
    expect(code).toBe('ERR_HPFORMER_FILE');
    expect(message).toMatch(/^\/torn\.\w+: cannot be read \(/);
  }
});

test('a number of a stay that is not exact is an error, or counted; as text it is a name', () => {
  const rows = [
    { stay: 2 ** 53, hours: 1, variable: 'Heart Rate', value: 80 },
    { stay: '9007199254740993', hours: 1, variable: 'Heart Rate', value: 90 },
  ];
  expect(read('large.parquet', rows)).toEqual({
    code: 'ERR_HPFORMER_INPUT',
    message: expect.stringContaining('row 1, column "stay": expected a number up to 2^53 - 1'),
  });
  expect(Object.keys(read('large.parquet', rows, true).stays)).toEqual(['9007199254740993']);
});
