/** Prepared arrays read back, and what is said of damaged ones; test/unit/health/edges.test.ts has more ways to damage them. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { healthTasks, prepareArrays, readPrepared, synthesizeEpisode } from '../../../src/data/health';

let folder: string;
let hash: string;
const at = (name: string) => path.join(folder, 'arrays', name);

beforeEach(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-prepared-'));
  for (let i = 0; i < 3; i++) {
    const { id, text } = synthesizeEpisode(i, { seed: 1, hours: 48 });
    fs.writeFileSync(path.join(folder, `${id}_timeseries.csv`), text);
  }
  const task = { ...healthTasks['in-hospital-mortality'], steps: 48 };
  const files = fs.readdirSync(folder).map((name) => path.join(folder, name));
  hash = (await prepareArrays({ task, inputs: files, out: at(''), workers: 0 })).preprocessing;
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function read(batch = 2) {
  const batches = [];
  for await (const episodes of readPrepared(at(''), hash, batch)) batches.push(episodes);
  return batches;
}

test('comes back in batches, in order', async () => {
  const batches = await read();
  expect(batches.map((b) => b.length)).toEqual([2, 1]);
  expect(batches.flat().map(({ id }) => id)).toEqual(['100000_episode1', '100001_episode1', '100002_episode1']);
  for (const { bins, step, features } of batches.flat()) {
    expect([bins, step, features.length]).toEqual([48, 47, 48 * 76]);
    expect(features.every(Number.isFinite)).toBe(true);
  }
});

const cut = (name: string, bytes: number) => () => fs.truncateSync(at(name), bytes);
const manifest = (change: object) => () => {
  const json = JSON.parse(fs.readFileSync(at('prepare.json'), 'utf8'));
  fs.writeFileSync(at('prepare.json'), JSON.stringify({ ...json, ...change }));
};

test.each<[string, () => void, RegExp]>([
  ['other preprocessing', manifest({ preprocessing: 'x' }), /^INPUT .*expected arrays made with the preprocessing/],
  ['no columns', manifest({ columns: [] }), /^INPUT .*a list of columns, got 3, 48 and \[\]$/],
  ['more stays than ids', manifest({ episodes: 4 }), /^FILE .*ids\.txt: expected 4 lines, got 3/],
  ['bins cut off', cut('bins.npy', 130), /^FILE .*bins\.npy: expected 3 numbers \(140 bytes\), got 130 bytes/],
  ['no features', () => fs.rmSync(at('features.npy')), /^FILE .*features\.npy: cannot be read \(ENOENT: [^,]*\)$/],
  [
    'features cut off',
    cut('features.npy', 133),
    /^FILE .*features\.npy: expected 3 stays of 3648 numbers .* got 133 bytes$/,
  ],
])('%s', async (_, damage, message) => {
  damage();
  const error = await read().then(
    () => undefined,
    (reason) => reason,
  );
  expect(`${String(error?.code).replace('ERR_HPFORMER_', '')} ${error?.message}`).toMatch(message);
});

test('a place for the ids that cannot be written is an error, not an event', async () => {
  fs.rmSync(at('ids.txt'));
  fs.mkdirSync(at('ids.txt'));
  const task = { ...healthTasks['in-hospital-mortality'], steps: 48 };
  const inputs = [path.join(folder, '100001_episode1_timeseries.csv')];
  await expect(prepareArrays({ task, inputs, out: at(''), workers: 0 })).rejects.toMatchObject({
    code: 'ERR_HPFORMER_FILE',
    message: expect.stringMatching(/ids\.txt: cannot be written \(EISDIR: illegal operation on a directory\)$/),
  });
});
