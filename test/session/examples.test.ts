/** The programs of examples/ run: a service that aborts when a client goes away, a pool of workers, a file of rows. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HPformer, Tensor } from '../../src';
import { root } from '../skips';

const env = { ...process.env, HPFORMER_MODULE: root };
const file = join(root, 'examples', 'nafld-mortality', 'model.safetensors');
const example = (name: string, ...args: string[]) =>
  spawnSync(process.execPath, [join(root, 'examples', name), ...args], { encoding: 'utf8', env, timeout: 60000 });
const sample = (seed: number) =>
  Array.from({ length: 48 }, (_, t) => Array.from({ length: 31 }, (_, f) => Math.fround(Math.sin(seed + 31 * t + f))));

/** What the model itself says of samples. */
async function expected(samples: number[][][]): Promise<number[]> {
  const model = await HPformer.load(file); // on the device that the examples choose
  const data = Float32Array.from(samples.flat(2));
  const { probabilities } = await model.run({ features: new Tensor('float32', data, [samples.length, 48, 31]) });
  model.dispose();
  return [...(probabilities.data as Float32Array)];
}

test('HTTP service: answers, refuses, aborts the run of a client that goes away, and ends when asked', async () => {
  const child = spawn(process.execPath, [join(root, 'examples', 'http.cjs'), '0'], { env });
  let printed = '';
  const said = async (pattern: RegExp) => {
    while (!pattern.test(printed)) await once(child.stdout, 'data');
  };
  child.stdout.on('data', (chunk: Buffer) => {
    printed += chunk.toString();
  });
  try {
    await said(/listening on/);
    const url = /http:\S+/.exec(printed)![0];
    const post = async (body: string) => {
      const response = await fetch(url, { method: 'POST', body });
      return { status: response.status, body: (await response.json()) as Record<string, unknown> };
    };
    const samples = [sample(1), sample(2)];
    const wanted = await expected(samples);
    expect(await post(JSON.stringify({ features: samples }))).toEqual({
      status: 200,
      body: { probabilities: wanted.map((value) => [value]) },
    });
    expect(await post('{')).toMatchObject({ status: 400 });
    expect(await post('{"features": [[1]]}')).toMatchObject({ status: 400 });
    expect(await post('{"features": [[[1, 2]]]}')).toMatchObject({ status: 400, body: { code: 'ERR_HPFORMER_SHAPE' } });
    expect((await fetch(url)).status).toBe(404);
    expect(await post('null')).toMatchObject({ status: 400 });
    // As many values as two people have, 47 hours and 49: no one's hour becomes another's.
    const uneven = [sample(1).slice(0, 47), [...sample(2), sample(3)[0]]];
    expect(await post(JSON.stringify({ features: uneven }))).toMatchObject({ status: 400 });
    // A connection that goes on after a body that was refused.
    expect((await post(`[${'0,'.repeat(5 << 20)}0]`)).status).toBe(413);
    expect((await post('{')).status).toBe(400);

    // The body is whole, the run begins, the client leaves.
    const many = JSON.stringify({ features: Array.from({ length: 200 }, (_, i) => sample(i)) });
    for (let tries = 0; !/aborted/.test(printed) && tries < 50; tries++) {
      const request = http.request(url, { method: 'POST' });
      request.on('error', () => undefined);
      request.end(many);
      await once(request, 'finish');
      await new Promise((resolve) => setTimeout(resolve, tries));
      request.destroy();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await said(/aborted: the client went away/);
    expect((await post(JSON.stringify({ features: samples }))).status).toBe(200);
    child.kill('SIGTERM');
    const [code, signal] = await once(child, 'exit');
    expect([code, signal]).toEqual([0, null]);
  } finally {
    child.kill('SIGKILL');
  }
}, 120000);

test('HTTP service: an error that is not the input’s has a status that says so', () => {
  const program = `
    const { HPformerError } = require(process.env.HPFORMER_MODULE);
    const { serve } = require('./http.cjs');
    const codes = ['SHAPE', 'INPUT', 'LIMIT', 'MEMORY', 'DEVICE', 'DISPOSED', 'INTERNAL'].map((name) => 'ERR_HPFORMER_' + name);
    let code;
    const server = serve({ device: 'cpu', run: async () => { throw code ? new HPformerError(code, 'x') : new Error('x'); } });
    server.listen(0, '127.0.0.1', async () => {
      const got = [];
      for (code of [...codes, undefined]) {
        const url = 'http://127.0.0.1:' + server.address().port + '/predict';
        got.push((await fetch(url, { method: 'POST', body: '{"features":[[[1]]]}' })).status);
      }
      console.log(got.join());
      server.close();
      server.closeAllConnections();
    });`;
  const options = { encoding: 'utf8', env, cwd: join(root, 'examples'), timeout: 60000 } as const;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], options);
  expect([stderr, stdout]).toEqual(['', '400,400,503,503,503,503,500,500\n']);
});

test('a worker of the pool that dies fails its jobs only; without any left a run fails at once', () => {
  const program = `
    const { Pool } = require('./workers.cjs');
    const run = (pool) => pool.run(new Float32Array(48 * 31), [1, 48, 31]).then(() => 'answered', (error) => error.message);
    (async () => {
      const pool = new Pool(3);
      const [{ worker: ends }, { worker: fails }, { worker: stays }] = pool.hands;
      console.log(await Promise.all([run(pool), run(pool), run(pool)]));
      // Not events.once: it ends with the error, and the exit may come before it is asked again.
      const ended = Promise.all([ends, fails].map((worker) => new Promise((resolve) => worker.once('exit', resolve))));
      ends.terminate();
      const lost = run(pool);
      fails.postMessage(null);
      await ended;
      console.log([await lost, pool.hands.length, ...(await Promise.all([run(pool), run(pool)]))]);
      stays.terminate();
      console.log([await run(pool), await run(pool)]);
      await pool.close();
    })();`;
  const options = { encoding: 'utf8', env, cwd: join(root, 'examples'), timeout: 60000 } as const;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], options);
  expect(stderr).toBe('');
  expect(stdout.trim().split('\n')).toEqual([
    "[ 'answered', 'answered', 'answered' ]",
    "[ 'the worker ended with code 1', 1, 'answered', 'answered' ]",
    "[ 'the worker ended with code 1', 'no worker is left' ]",
  ]);
});

test('pool of workers', () => {
  const { status, stdout, stderr } = example('workers.cjs', '2', '16');
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toBe('16 batches on 2 workers, equal answers; a wrong shape: ERR_HPFORMER_SHAPE\n');
});

test('a file of rows, in batches that do not divide it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-examples-'));
  try {
    const samples = Array.from({ length: 7 }, (_, i) => sample(i));
    const from = join(folder, 'in.jsonl');
    writeFileSync(from, samples.map((features, id) => JSON.stringify({ id, features })).join('\n'));
    const { status, stdout, stderr } = example('batch.cjs', from, join(folder, 'out.csv'), '3');
    expect([status, stderr, stdout]).toEqual([0, '', `7 rows: ${join(folder, 'out.csv')}\n`]);
    const [header, ...lines] = readFileSync(join(folder, 'out.csv'), 'utf8').trim().split('\n');
    expect(header).toBe('id,probability');
    const wanted = await expected(samples);
    expect(lines).toEqual(wanted.map((value, id) => `${id},${value}`));
    expect(example('batch.cjs', join(folder, 'none'), join(folder, 'x')).status).toBe(1);
    // Two rows that are wrong by one step each way are no batch of the right size.
    const steps = [samples[0]!.slice(1), [...samples[1]!, samples[1]![0]!]];
    writeFileSync(from, steps.map((features, id) => JSON.stringify({ id, features })).join('\n'));
    const mixed = example('batch.cjs', from, join(folder, 'mixed.csv'));
    expect([mixed.status, mixed.stderr]).toEqual([1, `${from} line 1: expected features of 48 rows of 31 numbers\n`]);
    writeFileSync(from, JSON.stringify({ id: 'a,"b"', features: samples[0] }));
    expect(example('batch.cjs', from, join(folder, 'quoted.csv')).status).toBe(0);
    expect(readFileSync(join(folder, 'quoted.csv'), 'utf8')).toMatch(/\n"a,""b""",0\.\d+\n$/);
    const unwritten = example('batch.cjs', from, join(folder, 'no folder', 'x.csv'));
    expect([unwritten.status, unwritten.stderr]).toEqual([1, expect.stringMatching(/^ENOENT: [^\n]*\(ENOENT\)\n$/)]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
