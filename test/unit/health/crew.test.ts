/** Worker threads of the health pipeline: the results, the order and the errors of one thread, and no waiting for a dead one. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type * as Crew from '../../../src/data/health/crew';
import type * as Health from '../../../src/data/health/index';
import { root } from '../../skips';

// Threads run compiled code, so this file tests the compiled package (made by test/setup.cjs).
const { runStage } = require(join(root, 'dist/data/health/crew.js')) as typeof Crew;
const { healthTasks, synthesizeEpisode, prepareArrays, fitNormalizer } = require(
  join(root, 'dist/data/health/index.js'),
) as typeof Health;

const task = healthTasks['in-hospital-mortality'];
const stage = { kind: 'features', task, bins: {}, unknown: 'error', lenient: false, normalizer: undefined } as const;
/** Beyond the stays that are done before threads start. */
const count = 600;
let folder: string;
let files: string[];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-crew-'));
  files = Array.from({ length: count }, (_, i) => {
    const file = join(folder, `${i}_timeseries.csv`);
    writeFileSync(file, synthesizeEpisode(i, { hours: 48 }).text);
    return file;
  });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function* jobs(list = files) {
  for (const [i, file] of list.entries()) yield { id: String(i), file };
}

async function results(options: Crew.CrewOptions, list?: string[], lenient = false) {
  const seen: string[] = [];
  let sum = 0;
  let failure: Error | undefined;
  try {
    for await (const [job, result] of runStage({ ...stage, lenient }, jobs(list), options)) {
      seen.push(`${job.id} ${result.kind}`);
      if (result.kind === 'features') for (const x of result.episode.features) sum += x;
    }
  } catch (error) {
    failure = error as Error;
  }
  return { seen, sum, failure };
}

test('the same results in the same order with any number of threads', async () => {
  const alone = await results({ workers: 0 });
  expect(alone.seen).toHaveLength(count);
  expect(alone.failure).toBeUndefined();
  for (const workers of [1, 2, 3]) expect(await results({ workers })).toEqual(alone);
});

test('jobs that end in an error: what came before is given first, then the earliest error', async () => {
  const broken = join(folder, 'broken_timeseries.csv');
  writeFileSync(broken, 'Hours,Heart Rate\n1,abc\n');
  for (const bad of [undefined, 400]) {
    const run = async (workers: number) => {
      const seen: string[] = [];
      const source = async function* () {
        for (let i = 0; i < 500; i++) yield { id: String(i), file: i === bad ? broken : files[i]! };
        throw new Error('no more');
      };
      const all = async () => {
        for await (const [job] of runStage(stage, source(), { workers })) seen.push(job.id);
      };
      const message = await all().then(
        () => 'none',
        (error: Error) => error.message,
      );
      return { seen, message };
    };
    const alone = await run(0);
    expect(alone.seen).toHaveLength(bad ?? 500);
    expect(alone.message).toContain(bad === undefined ? 'no more' : 'broken_timeseries.csv line 2');
    expect(await run(2)).toEqual(alone);
  }
});

test('arrays and normaliser are the same bytes', async () => {
  const made: Buffer[][] = [];
  for (const workers of [0, 2]) {
    const out = join(folder, `out${workers}`);
    const options = { task, inputs: files, out, workers };
    const normalizer = await fitNormalizer(options);
    const manifest = await prepareArrays({ ...options, normalizer });
    expect(manifest.episodes).toBe(count);
    made.push(
      ['features.npy', 'bins.npy', 'step.npy', 'ids.txt', 'prepare.json'].map((f) => readFileSync(join(out, f))),
    );
  }
  for (const [i, bytes] of made[0]!.entries()) expect(bytes.equals(made[1]![i]!)).toBe(true);
});

describe('a malformed file', () => {
  const bad = (lines: (text: string) => string) => {
    const file = join(folder, 'bad_timeseries.csv');
    writeFileSync(file, lines(synthesizeEpisode(0).text));
    return [...files.slice(0, 500), file, ...files.slice(500)];
  };

  test('ends the run at its place, with file, line and column', async () => {
    const list = bad((text) => text.replace(/\n([\d.]+),/, '\nnoon,'));
    const { seen, failure } = await results({ workers: 2 }, list);
    expect(seen).toHaveLength(500);
    expect(failure).toMatchObject({
      name: 'HPformerError',
      code: 'ERR_HPFORMER_INPUT',
      message: `${folder}/bad_timeseries.csv line 2, column "Hours": expected a number of hours, got "noon"`,
    });
  });

  test('is told when lenient', async () => {
    const list = bad((text) => text.replace(/\n([\d.]+),/, '\nnoon,'));
    const { seen, failure } = await results({ workers: 2 }, list, true);
    expect(failure).toBeUndefined();
    expect(seen).toHaveLength(count + 1);
    expect(seen[500]).toBe('500 malformed');
  });

  test('that is not there', async () => {
    const { failure } = await results({ workers: 1 }, [...files, join(folder, 'none.csv')]);
    expect(failure).toMatchObject({
      code: 'ERR_HPFORMER_FILE',
      message: expect.stringContaining('none.csv: cannot be read'),
    });
  });
});

describe('a thread that ends', () => {
  const script = (name: string, text: string) => {
    const file = join(folder, `${name}.js`);
    writeFileSync(file, text);
    return file;
  };
  const listen = `const { parentPort } = require('node:worker_threads'); parentPort.on('message', () => {`;

  test.each([
    [
      'exits',
      `${listen} process.exit(3); });`,
      /health worker thread: expected prepared stays, got its end with exit code 3/,
    ],
    ['throws', `${listen} throw new Error('broken'); });`, /expected prepared stays, got Error: broken/],
    ['cannot start', `throw new Error('no start');`, /expected prepared stays, got Error: no start/],
  ])('%s: an error, and nobody waits', async (name, text, message) => {
    const { seen, failure } = await results({ workers: 2, script: script(name, text) });
    expect(seen).toHaveLength(256);
    expect(failure).toMatchObject({ code: 'ERR_HPFORMER_INTERNAL', message: expect.stringMatching(message) });
  });

  test('in the middle of its work', async () => {
    const own = join(root, 'dist/data/health/stageWorker.js');
    const text = `require(${JSON.stringify(own)}); let n = 0; ${listen} if (++n === 2) process.exit(1); });`;
    const { seen, failure } = await results({ workers: 1, script: script('middle', text) });
    expect(failure).toMatchObject({ code: 'ERR_HPFORMER_INTERNAL' });
    expect(seen.length).toBeLessThan(count);
    expect(seen).toEqual((await results({ workers: 0 })).seen.slice(0, seen.length));
  });

  test('an abort does not wait for one that never answers', async () => {
    const controller = new AbortController();
    const options = { workers: 2, signal: controller.signal, script: script('silent', `${listen} });`) };
    const running = results(options);
    await pause(300);
    const reason = new Error('enough');
    controller.abort(reason);
    expect((await running).failure).toBe(reason);
  });
});

test('an abort before and during the work rejects with its reason', async () => {
  const reason = new Error('stop');
  expect(await results({ workers: 2, signal: AbortSignal.abort(reason) })).toMatchObject({ seen: [], failure: reason });
  const controller = new AbortController();
  let seen = 0;
  const reading = async () => {
    for await (const _ of runStage(stage, jobs(), { workers: 2, signal: controller.signal })) {
      if (++seen === 400) controller.abort(reason);
    }
  };
  await expect(reading()).rejects.toBe(reason);
  expect(seen).toBeLessThan(count);
});

test('at most a few chunks are read ahead of a slow reader', async () => {
  let given = 0;
  async function* counted() {
    for await (const job of jobs()) {
      given++;
      yield job;
    }
  }
  let taken = 0;
  for await (const _ of runStage(stage, counted(), { workers: 1 })) {
    taken++;
    // Two chunks of 64 before the thread, and one being gathered.
    expect(given - taken).toBeLessThanOrEqual(3 * 64);
    if (taken === 500) break;
  }
  expect(taken).toBe(500);
});

test('other formats keep their place among episode files', async () => {
  mkdirSync(join(folder, 'mixed'));
  const line = JSON.stringify({ stay: 'json', readings: [{ hours: 1, variable: 'Heart Rate', value: 80 }] });
  for (let i = 0; i < 300; i++)
    writeFileSync(join(folder, `mixed/a${1000 + i}_timeseries.csv`), synthesizeEpisode(i).text);
  writeFileSync(join(folder, 'mixed/b.jsonl'), line);
  writeFileSync(join(folder, 'mixed/c_timeseries.csv'), synthesizeEpisode(1).text);
  const out = join(folder, 'mixed-out');
  await prepareArrays({ task, inputs: [join(folder, 'mixed')], out, workers: 2 });
  const ids = readFileSync(join(out, 'ids.txt'), 'utf8').trim().split('\n');
  expect(ids.slice(-3)).toEqual(['a1299', 'json', 'c']);
});
