/** Device 'auto': falls back to the CPU when the CUDA device cannot take the model, and says why; other errors stay errors. */
import { spawnSync } from 'node:child_process';
import type { NativeAddon, NativeDevice } from '../../src/native/addon';
import { cudaLibrary, root, testUnless, withoutCudaLibrary } from '../skips';

/** What the CUDA device of the addon below answers to a load; 0: it takes the model. */
let answer: { code: number; message: string };
const asked: string[] = [];

jest.mock('../../src/native/load', () => {
  const actual = jest.requireActual('../../src/native/load') as { loadAddon(): NativeAddon };
  const real = actual.loadAddon();
  const device: NativeDevice = {
    ...{ id: 'cuda:0', kind: 'cuda', name: 'stub', available: true, reason: '', memory: 1 << 30, level: '8.0' },
  };
  const addon: NativeAddon = Object.assign(Object.create(real), {
    info: () => {
      const info = real.info();
      return { ...info, devices: [...info.devices.filter(({ kind }) => kind === 'cpu'), device] };
    },
    createModel: (...args: Parameters<NativeAddon['createModel']>) => {
      asked.push(args[2].device);
      if (args[2].device !== 'cuda:0') return real.createModel(...args);
      if (answer.code === 0) return real.createModel(args[0], args[1], { ...args[2], device: 'cpu' }, args[3]);
      setImmediate(() => args[3](answer.code, answer.message, undefined));
    },
  });
  return { ...actual, loadAddon: () => addon };
});

import { devices, HPformer, presets } from '../../src';
import { batchOf } from '../session/models';

const config = presets.mortality({ embedding: { kind: 'features', size: 7 }, hidden: 32, layers: 1 });
/** In the order of StatusCode. */
const [checkpoint, device, limit, memory, internal, configuration] = [6, 8, 9, 10, 12, 5];

describe("device 'auto'", () => {
  beforeEach(() => {
    asked.length = 0;
  });

  test.each([
    [device, 'cuda:0: cuModuleLoadData failed with CUDA_ERROR_NO_BINARY_FOR_GPU'],
    [memory, 'cuda:0: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY'],
  ])('status %d of the CUDA device: the CPU, and the reason in devices()', async (code, message) => {
    answer = { code, message };
    const model = await HPformer.create(config, { seed: 1 });
    expect(asked).toEqual(['cuda:0', 'cpu']);
    expect(model.device).toBe('cpu');
    expect((await model.run(batchOf(2, 0))).logits.dims).toEqual([2, 1]);
    const listed = devices().find(({ id }) => id === 'cuda:0');
    expect(listed).toMatchObject({ available: true, reason: `'auto' fell back: ${message}` });
    model.dispose();
  });

  test.each([checkpoint, limit, internal, configuration])(
    'status %d is the same on every device: no fall back',
    async (code) => {
      answer = { code: code!, message: 'something that the CPU would say too' };
      await expect(HPformer.create(config, { device: 'auto' })).rejects.toMatchObject({ message: answer.message });
      expect(asked).toEqual(['cuda:0']);
    },
  );

  test('a device that takes a model later has no reason against it any more', async () => {
    answer = { code: memory!, message: 'full' };
    (await HPformer.create(config)).dispose();
    expect(devices().find(({ id }) => id === 'cuda:0')!.reason).toContain('full');
    answer = { code: 0, message: '' };
    const model = await HPformer.create(config);
    expect(model.device).toBe('cuda:0');
    expect(devices().find(({ id }) => id === 'cuda:0')!.reason).toBe('');
    model.dispose();
  });

  test('whoever names the device gets its error', async () => {
    answer = { code: memory!, message: 'no memory there' };
    for (const name of ['cuda', 'cuda:0'] as const) {
      await expect(HPformer.create(config, { device: name })).rejects.toMatchObject({ code: 'ERR_HPFORMER_MEMORY' });
    }
    expect(asked).toEqual(['cuda:0', 'cuda:0']);
  });

  /** The real backend, on a device whose memory does not hold the weights. Only the stand-in driver has one. */
  const standIn = cudaLibrary()?.includes('gpusim') ? withoutCudaLibrary() : 'no stand-in CUDA driver';
  testUnless(standIn, 'a device without memory for the weights', () => {
    const script = `const hp = require(${JSON.stringify(root)});
      (async () => {
        const model = await hp.HPformer.create(hp.presets.mortality(), { seed: 1 });
        const features = new hp.Tensor('float32', new Float32Array(48 * 76), [1, 48, 76]);
        await model.run({ features });
        const named = await hp.HPformer.create(hp.presets.mortality(), { device: 'cuda:0' }).catch(({ code }) => code);
        console.log(JSON.stringify([model.device, hp.devices().find(({ id }) => id === 'cuda:0').reason, named]));
      })();`;
    const env = { ...process.env, HPFORMER_CUDA_LIBRARY: cudaLibrary(), GPUSIM_MEMORY: '64K' };
    const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env,
      cwd: root,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [used, reason, named] = JSON.parse(stdout);
    expect(used).toBe('cpu');
    expect(reason).toMatch(/^'auto' fell back: cuda:0: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY/);
    expect(named).toBe('ERR_HPFORMER_MEMORY');
  });
});
