/**
 * Parquet and Arrow files as their own libraries write them, read through the optional peers: the arrays of the same stays as CSV.
 * In a child process, since jest resolves dynamic imports in its own way.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let folder: string;
let out: Record<string, Record<string, unknown>>;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-tables-'));
  const done = spawnSync(process.execPath, [join(__dirname, 'tables.cjs'), folder], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(done.stderr);
  out = JSON.parse(done.stdout);
}, 120000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each([
  'wide parquet UNCOMPRESSED',
  'long parquet UNCOMPRESSED',
  'wide parquet SNAPPY',
  'long parquet SNAPPY',
  'wide arrow file',
  'long feather file',
  'wide arrow stream',
  'long feather stream',
  'dictionary',
])('%s: the bins of the CSV', (name) => {
  expect(Object.keys(out.expected!)).toHaveLength(3);
  expect(out[name]).toEqual({ stays: out.expected, drops: {} });
});

test('64-bit numbers of a stay, hours and values', () => {
  expect(out.whole).toEqual(['7']);
});

test('what is wrong is named by file, row and column, or counted', () => {
  expect(out.bad).toEqual({
    code: 'ERR_HPFORMER_INPUT',
    message: '/bad.parquet row 5, column "Heart Rate": expected a value of the variable, got "fast"',
  });
  expect(out.lenient).toEqual({
    'column "Heart Rate": expected a value of the variable': {
      count: 1,
      examples: [expect.stringMatching(/bad\.parquet row 5$/)],
    },
  });
});

test('a file that is something else or ends early is an error of the file', () => {
  expect(out.textArrow).toEqual({
    code: 'ERR_HPFORMER_FILE',
    message: '/text.arrow: cannot be read (no Arrow table in it)',
  });
  expect(out.cut).toEqual({
    code: 'ERR_HPFORMER_FILE',
    message: expect.stringMatching(/^\/cut\.parquet: cannot be read \(.+\)$/),
  });
  expect(out.cutArrow).toEqual({
    code: 'ERR_HPFORMER_FILE',
    message: expect.stringMatching(/^\/cut\.arrow: cannot be read \(.+\)$/),
  });
});
