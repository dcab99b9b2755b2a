/** Sizes at the edges of integers, memory that runs out, and memory that comes back. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { HPformer, type HPformerError, kernels, presets, Tensor } from '../../src';
import { initialWeights } from '../../src/checkpoint/init';
import { parameterCount } from '../../src/checkpoint/names';
import { validateConfig } from '../../src/config/validate';
import { createNative } from '../../src/model/devices';
import { resolveOptions } from '../../src/model/options';
import { loadAddon } from '../../src/native/load';
import { batchOf, bits, codeOf, create } from '../session/models';
import { notOn, root, testUnless, underSanitizer } from '../skips';

const edges = [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 2 ** 64];

describe('sizes around 2^31, 2^32, 2^53 and 2^63', () => {
  let model: HPformer;
  beforeAll(async () => {
    model = await create();
  });
  afterAll(() => model.dispose());

  test.each(edges)('a dim of %d in a feed, a tensor, an output of a kernel', async (edge) => {
    const data = new Float32Array(336);
    for (const dims of [
      [edge, 48, 7],
      [1, edge, 7],
      [1, 48, edge],
      [edge, edge, 7],
      [edge, 0, 7],
      [0, edge, 7],
    ]) {
      expect(await codeOf(() => new Tensor('float32', data, dims))).toBe('ERR_HPFORMER_SHAPE');
      expect(await codeOf(() => model.run({ features: { type: 'float32', data, dims } }))).toBe('ERR_HPFORMER_SHAPE');
      const empty = { type: 'float32' as const, data: new Float32Array(0), dims };
      expect(await codeOf(() => model.run({ features: empty }))).toBe('ERR_HPFORMER_SHAPE');
    }
    const x = new Tensor('float32', new Float32Array(8), [1, 4, 2]);
    const pool = (segments: number, length: number) => () =>
      kernels.segmentPool({ x }, { segments, length, pooling: 'mean' });
    expect(await codeOf(pool(edge, 1))).toMatch(/^ERR_HPFORMER_(SHAPE|RANGE|LIMIT)$/);
    expect(await codeOf(pool(edge, edge))).toMatch(/^ERR_HPFORMER_(SHAPE|RANGE|LIMIT)$/);
    // Rows that are appended take memory too: a handful of numbers asked for terabytes.
    const extra = new Tensor('float32', new Float32Array(2), [1, 1, 2]);
    const intra = () => kernels.intraSegmentAttention({ x, extra }, { length: edge });
    expect(await codeOf(intra)).toMatch(/^ERR_HPFORMER_(SHAPE|RANGE|LIMIT)$/);
    const own = new Tensor('float64', new Float64Array(8), [1, 4, 2]);
    const asked = new Tensor('float64', new Float64Array(2), [1, 1, 2]);
    const exact = () => kernels.intraSegmentAttention({ x: own, extra: asked }, { length: edge });
    expect(await codeOf(exact)).toMatch(/^ERR_HPFORMER_(SHAPE|RANGE|LIMIT)$/);
  });

  test.each(edges)('a batch or a number of steps of %d for warmup and plan', async (edge) => {
    for (const shape of [
      { batch: edge, steps: 48 },
      { batch: 1, steps: edge },
      { batch: edge, steps: edge },
    ]) {
      expect(await codeOf(() => model.warmup(shape))).toMatch(/^ERR_HPFORMER_(SHAPE|RANGE|LIMIT|MEMORY)$/);
      expect(await codeOf(() => model.plan(shape))).toMatch(/^(ok|ERR_HPFORMER_(SHAPE|RANGE|LIMIT))$/);
    }
  });

  test.each(edges)('a config whose sizes are %d', async (edge) => {
    const base = presets.mortality({ embedding: { size: 7 }, hidden: 16, heads: 2, layers: 1 });
    const configs = [
      { ...base, hidden: edge },
      { ...base, layers: edge },
      { ...base, heads: edge },
      { ...base, embedding: { kind: 'features', size: edge } },
      { ...base, embedding: { kind: 'tokens', vocabulary: edge, padding: 1 } },
      { ...base, positions: { kind: 'learned', maximum: edge } },
      { ...base, segments: { ...base.segments, times: edge, steps: null } },
      { ...base, segments: { ...base.segments, steps: edge } },
      { ...base, head: { ...base.head, labels: edge } },
      { ...base, head: { ...base.head, layers: [{ size: edge, activation: 'relu' }] } },
    ];
    for (const config of configs) {
      const made = async () => (await HPformer.create(config as never, { device: 'cpu' })).dispose();
      expect(await codeOf(made)).toMatch(/^(ok|ERR_HPFORMER_(CONFIG|LIMIT|MEMORY))$/);
    }
  });
});

test('packed weights: all of them and little more, nothing after dispose', async () => {
  const config = validateConfig(presets.mortality({ hidden: 64, layers: 2 }));
  const weights = initialWeights(config, 1);
  const checkpoint = { config, weights, key: 'k', parameterCount: parameterCount(config), metadata: {} };
  const { native } = await createNative(loadAddon(), checkpoint, resolveOptions({ device: 'cpu' }));
  const needed = parameterCount(config).used * 4;
  // Panels are padded to whole registers; the absorbed embedding keeps two products of weights besides.
  expect(native.packedBytes).toBeGreaterThan(needed);
  expect(native.packedBytes).toBeLessThan(4 * needed);
  native.dispose();
  native.dispose();
  expect(native.packedBytes).toBe(0);
});

const megabyte = 2 ** 20;

describe('memory outside its heap that V8 knows of, in a process of its own', () => {
  // process.memoryUsage().external says array buffers only (Node.js 20 to 26); the addon asks V8 for all of it.
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      '--expose-gc',
      '-e',
      `
const dist = ${JSON.stringify(join(root, 'dist'))};
const hp = require(dist);
const { initialWeights } = require(dist + '/checkpoint/init.js');
const { validateConfig } = require(dist + '/config/validate.js');
const { createNative } = require(dist + '/model/devices.js');
const { resolveOptions } = require(dist + '/model/options.js');
const { loadAddon } = require(dist + '/native/load.js');
const config = validateConfig(hp.presets.mortality({ hidden: 512, layers: 4 }));
const checkpoint = (seed) => ({ config, weights: initialWeights(config, seed), key: 'k' + seed, parameterCount: {}, metadata: {} });
const external = async () => {
  for (let i = 0; i < 5; i++) {
    global.gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return loadAddon().info().externalMemory - process.memoryUsage().arrayBuffers;
};
const native = async (device) => (await createNative(loadAddon(), checkpoint(1), resolveOptions({ device }))).native;
(async () => {
  await (await native('cpu')).dispose(); // what the first model makes once
  const result = {};
  for (const device of ['cpu', 'reference']) {
    const start = await external();
    let one = await native(device);
    const packed = one.packedBytes;
    const made = await external();
    one.dispose();
    one.dispose();
    const disposed = await external();
    one = await native(device);
    one = undefined;
    const collected = await external();
    result[device] = { packed, made: made - start, disposed: disposed - start, collected: collected - start };
  }
  const start = await external();
  const model = await hp.HPformer.create(config, { device: 'cpu', seed: 1 });
  const made = await external();
  model.dispose();
  result.public = { packed: result.cpu.packed, made: made - start, disposed: (await external()) - start, collected: 0 };
  console.log(JSON.stringify(result));
})();`,
    ],
    { encoding: 'utf8', timeout: 60000 },
  );

  test.each(['cpu', 'reference', 'public'])('%s: rises by what was packed, within 1 %%, and comes back', (which) => {
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { packed, made, disposed, collected } = JSON.parse(stdout)[which] as Record<string, number>;
    expect(packed).toBeGreaterThan(4 * megabyte);
    expect(Math.abs(made! - packed!)).toBeLessThan(packed! / 100);
    expect(Math.abs(disposed!)).toBeLessThan(packed! / 100);
    expect(Math.abs(collected!)).toBeLessThan(packed! / 100);
  });
});

test('a model that was disposed of holds no weights, however long it is referenced', () => {
  const script = `
const hp = require(${JSON.stringify(root)});
const held = async () => {
  for (let i = 0; i < 5; i++) {
    global.gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return process.memoryUsage().arrayBuffers;
};
(async () => {
  const config = hp.presets.mortality({ hidden: 512, layers: 4 });
  const before = await held();
  const model = await hp.HPformer.create(config, { device: 'cpu', seed: 1 });
  const live = await held();
  model.dispose();
  console.log(JSON.stringify({ live: live - before, after: (await held()) - before, device: model.device }));
})();`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', '-e', script], { encoding: 'utf8' });
  expect(stderr).toBe('');
  const { live, after } = JSON.parse(stdout) as { live: number; after: number };
  expect(live).toBeGreaterThan(8 * megabyte);
  expect(after).toBeLessThan(megabyte);
});

/** A script in a child whose address space is limited to so many MiB. */
function limited(megabytes: number, body: string): { status: number | null; stdout: string; stderr: string } {
  const script = `
const hp = require(${JSON.stringify(root)});
const codeOf = async (action) => { try { await action(); return 'ok'; } catch (error) { return error.code ?? String(error); } };
(async () => {${body}})();`;
  const wrapper = `ulimit -v ${megabytes * 1024}; exec "$0" --max-old-space-size=512 -e "$1"`;
  return spawnSync('bash', ['-c', wrapper, process.execPath, script], { encoding: 'utf8', timeout: 60000, cwd: root });
}

testUnless(
  notOn('linux') ?? underSanitizer(),
  'ulimit -v: what does not fit is an error of memory, and what fits runs before and after it',
  () => {
    const { status, stdout, stderr } = limited(
      6144,
      `
const options = { device: 'reference', maxBytes: 2 ** 50, seed: 1 };
const config = hp.presets.image({ hidden: 256, heads: 2, layers: 1 });
const model = await hp.HPformer.create(config, options);
const run = (steps) => codeOf(() => model.run({ values: new Float32Array(steps) }));
const codes = [await run(64), await run(4_000_000), await run(64)];
const wide = hp.presets.listops({ embedding: { vocabulary: 40_000_000 }, hidden: 64, heads: 1, layers: 1 });
codes.push(await codeOf(() => hp.HPformer.create(wide, { device: 'cpu' })), await run(64));
console.log(codes.join(' '));`,
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.trim()).toBe('ok ERR_HPFORMER_MEMORY ok ERR_HPFORMER_MEMORY ok');
  },
  90000,
);

testUnless(
  notOn('linux') ?? underSanitizer(),
  'ulimit -v: weights, feeds and kernels that cannot be copied are errors of memory',
  () => {
    const { status, stdout, stderr } = limited(
      6144,
      `
const { loadAddon } = require(${JSON.stringify(join(root, 'dist', 'native', 'load.js'))});
const { nativeSpec } = require(${JSON.stringify(join(root, 'dist', 'native', 'spec.js'))});
const config = hp.presets.image({ hidden: 8, heads: 2, layers: 1 });
const model = await hp.HPformer.create(config, { device: 'cpu', maxBytes: 2 ** 50, seed: 1 });
// As much as there is, but for a little: a copy has no room.
const fill = [];
for (let size = 2 ** 30; size >= 2 ** 26; ) {
  try { fill.push(new Float32Array(size / 4)); } catch { size /= 2; }
}
const big = fill[0];
const codes = [
  await codeOf(() => model.run({ values: new Float64Array(big.buffer) })),
  await codeOf(() => model.run({ values: big })),
  await codeOf(() => hp.kernels.dense({ x: new hp.Tensor('float32', big, [big.length / 64, 64]), weight: new hp.Tensor('float32', new Float32Array(4096), [64, 64]) }, { activation: 'linear' })),
  await new Promise((resolve) =>
    loadAddon().createModel(nativeSpec(config), { 'embedding.weight': big },
      { device: 'cpu', precision: 0, threads: 1, key: '', rejectNonFinite: false }, (code) => resolve(code))),
];
fill.length = 0;
console.log(codes.join(' '));`,
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.trim()).toBe('ERR_HPFORMER_MEMORY ERR_HPFORMER_MEMORY ERR_HPFORMER_MEMORY 10');
  },
  90000,
);

test('a limit on bytes is looked at before a feed is converted', async () => {
  const strict = await create({ maxBytes: 2 ** 20 });
  const features = new Tensor('float16', new Uint16Array(48 * 7 * 100_000), [100_000, 48, 7]);
  const before = process.memoryUsage().arrayBuffers;
  const { code, message } = (await strict.run({ features }).catch((error) => error)) as HPformerError;
  expect(code).toBe('ERR_HPFORMER_LIMIT');
  expect(message).toMatch(/features \[100000, 48, 7\] alone needs 134400000$/);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  strict.dispose();
});

test('a limit on bytes is looked at before anything is allocated', async () => {
  const model = await create();
  const feeds = batchOf(2, 1);
  const before = process.memoryUsage().arrayBuffers;
  const strict = await create({ maxBytes: 4096 });
  for (let i = 0; i < 50; i++) {
    expect(await codeOf(() => strict.run(feeds))).toBe('ERR_HPFORMER_LIMIT');
    expect(await codeOf(() => strict.runSync(feeds))).toBe('ERR_HPFORMER_LIMIT');
    expect(await codeOf(() => strict.trace(feeds))).toBe('ERR_HPFORMER_LIMIT');
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  expect(bits((await model.run(feeds)).logits)).toBe(bits(model.runSync(feeds).logits));
  model.dispose();
  strict.dispose();
});
