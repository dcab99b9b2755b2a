/** Ways in which a process comes to the addon: refused by Node.js, from two places at once, in children and in a cluster. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addonPath } from '../../src/native/load';
import { root } from '../skips';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hpformer-loading-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A small model and one batch of it: the bits of a result as text. */
const prelude = `
const make = (hp) => hp.HPformer.create(hp.presets.mortality({ hidden: 32, layers: 2, embedding: { size: 7 } }), { device: 'cpu', seed: 5 });
const feeds = (hp) => ({ features: new hp.Tensor('float32', Float32Array.from({ length: 9 * 48 * 7 }, (_, i) => Math.sin(i)), [9, 48, 7]) });
const bitsOf = (t) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength).toString('hex');
const answer = async (hp) => { const m = await make(hp); const { logits } = await m.run(feeds(hp)); m.dispose(); return bitsOf(logits); };
`;

function node(script: string, ...options: string[]): SpawnSyncReturns<string> {
  const file = join(folder, 'script.cjs');
  writeFileSync(file, `${prelude}${script}`);
  return spawnSync(process.execPath, [...options, file], { encoding: 'utf8', timeout: 60000 });
}

function expectOut(result: SpawnSyncReturns<string>, stdout: string): void {
  const { status, signal, stderr } = result;
  expect({ status, signal, stderr, stdout: result.stdout.trim() }).toEqual({
    status: 0,
    signal: null,
    stderr: '',
    stdout,
  });
}

test('node --no-addons: the package loads, devices say why, a model is one clear error', () => {
  const script = `
const hp = require(${JSON.stringify(root)});
const reasons = new Set(hp.devices().map(({ available, reason }) => available + ' ' + reason));
make(hp).catch((error) => console.log(JSON.stringify({ reasons: [...reasons], code: error.code, name: error.name, message: error.message })));`;
  const result = node(script, '--no-addons');
  expect([result.status, result.stderr]).toEqual([0, '']);
  const { reasons, code, name, message } = JSON.parse(result.stdout);
  expect([name, code]).toEqual(['HPformerError', 'ERR_HPFORMER_ADDON']);
  expect(message).toMatch(/got: .*addons? .*disabled\. Start it without --no-addons, or with --allow-addons/);
  expect(message).not.toContain('\n');
  expect(reasons).toEqual([`false ${message}`]);
});

test('require alone reads neither addon nor readers of files: they come with the first model', () => {
  const result = node(`
require(${JSON.stringify(root)});
const read = Object.keys(require.cache).map((file) => require('node:path').relative(${JSON.stringify(root)}, file).replaceAll('\\\\', '/'));
const late = read.filter((file) => /node_modules|\\.node$|dist\\/(checkpoint|data|cli|metrics|onnx)\\//.test(file));
console.log(JSON.stringify({ late, few: read.length < 40, some: read.length > 10 }));`);
  expectOut(result, JSON.stringify({ late: [], few: true, some: true }));
});

test('the addon from two paths in one process: both compute, together and after one another', () => {
  for (const name of ['one', 'two']) {
    const copy = join(folder, name);
    mkdirSync(join(copy, 'build', 'Release'), { recursive: true });
    mkdirSync(join(copy, 'node_modules'));
    for (const part of ['dist', 'package.json']) cpSync(join(root, part), join(copy, part), { recursive: true });
    cpSync(addonPath()!, join(copy, 'build', 'Release', 'hpformer.node'));
    symlinkSync(join(root, 'node_modules', 'node-gyp-build'), join(copy, 'node_modules', 'node-gyp-build'), 'junction');
  }
  const script = `
const { Worker } = require('node:worker_threads');
delete process.env.HPFORMER_PREBUILD; // would lead both to one file
const one = require('./one'), two = require('./two');
(async () => {
  if (one.HPformer === two.HPformer) throw new Error('one module, not two');
  const loaded = process.report.getReport().sharedObjects.filter((file) => file.endsWith('hpformer.node'));
  console.log(loaded.length);
})().then(async () => {
  const first = await answer(one);
  const all = await Promise.all([one, two, one, two].map(answer));
  const inWorker = await new Promise((resolve, reject) => {
    const code = ${JSON.stringify(prelude)} + "answer(require('./two')).then((bits) => require('node:worker_threads').parentPort.postMessage(bits))";
    const path = require('node:path').join(__dirname, 'worker.cjs');
    require('node:fs').writeFileSync(path, code);
    new Worker(path).once('message', resolve).once('error', reject);
  });
  console.log([...all, inWorker, await answer(two)].every((bits) => bits === first) && first.length === 72 ? 'equal' : 'different');
  const files = process.report.getReport().sharedObjects.filter((file) => file.endsWith('hpformer.node'));
  console.log(files.length);
});`;
  expectOut(node(script), '0\nequal\n2');
});

test('child_process.fork, while the parent computes, and after it has', () => {
  const script = `
const { fork } = require('node:child_process');
const hp = require(${JSON.stringify(root)});
const child = () => new Promise((resolve, reject) => {
  const forked = fork(__filename, ['child']);
  let got;
  forked.once('message', (bits) => { got = bits; });
  forked.once('error', reject);
  forked.once('exit', (code, signal) => resolve([got, code, signal].join(' ')));
});
if (process.argv[2] === 'child') answer(hp).then((bits) => process.send(bits, () => process.disconnect()));
else (async () => {
  const mine = await answer(hp);
  const m = await make(hp);
  const children = Promise.all([child(), child()]);
  let settled = false;
  children.finally(() => { settled = true; });
  let runs = 0;
  while (!settled) { if (bitsOf((await m.run(feeds(hp))).logits) !== mine) throw new Error('other bits'); runs++; }
  const all = [...await children, await child()];
  console.log(runs > 0 && all.every((text) => text === mine + ' 0 ') ? 'equal' : all.join());
})();`;
  expectOut(node(script), 'equal');
});

test('cluster: workers compute, one is killed in the middle of a run, its successor computes', () => {
  const script = `
const cluster = require('node:cluster');
const hp = require(${JSON.stringify(root)});
const message = (worker) => new Promise((resolve) => worker.once('message', resolve));
if (cluster.isPrimary) (async () => {
  const mine = await answer(hp);
  const workers = [cluster.fork(), cluster.fork({ BUSY: '1' })];
  const [bits] = await Promise.all(workers.map(message));
  const gone = new Promise((resolve) => workers[1].once('exit', (code, signal) => resolve(signal)));
  workers[1].process.kill('SIGKILL');
  const signal = await gone;
  const next = cluster.fork();
  const after = await message(next);
  const codes = await Promise.all([workers[0], next].map((worker) => new Promise((resolve) => {
    worker.once('exit', (code) => resolve(code));
    worker.disconnect();
  })));
  console.log(bits === mine && after === mine ? 'equal' : 'different', signal, codes.join(' '));
})();
else if (process.env.BUSY) (async () => {
  const m = await make(hp);
  process.send('busy');
  for (;;) await Promise.all([m.run(feeds(hp)), m.run(feeds(hp))]);
})();
else answer(hp).then((bits) => process.send(bits));`;
  expectOut(node(script), 'equal SIGKILL 0 0');
});

test('AsyncLocalStorage: a context survives create, run, stream and an abort', () => {
  const script = `
const { AsyncLocalStorage } = require('node:async_hooks');
const hp = require(${JSON.stringify(root)});
const storage = new AsyncLocalStorage();
(async () => {
  const m = await make(hp);
  const seen = await Promise.all([1, 2, 3].map((id) => storage.run(id, async () => {
    const made = storage.getStore();
    const other = await make(hp);
    await m.run(feeds(hp));
    const ran = storage.getStore();
    for await (const _ of other.stream([feeds(hp), feeds(hp)])) if (storage.getStore() !== id) throw new Error('lost in a stream');
    const aborted = await other.run(feeds(hp), { signal: AbortSignal.abort('why') }).catch((reason) => reason + storage.getStore());
    other.dispose();
    return [made, ran, aborted].join();
  })));
  console.log(seen.join(' '), storage.getStore());
})();`;
  expectOut(node(script), '1,1,why1 2,2,why2 3,3,why3 undefined');
});
