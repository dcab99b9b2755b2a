/** Device names of the CUDA backend. Batches split over several devices: test/native/cuda_devices_test.cc. */
import { HPformer, presets, Tensor } from '../../src';
import { describeUnless, withoutCudaLibrary } from '../skips';
import { useCudaLibrary } from './driver';

const config = presets.mortality({ hidden: 64, layers: 2 });
const steps = 48;
const data = Float32Array.from({ length: 5 * steps * 76 }, (_, i) => Math.sin(i));
const features = new Tensor('float32', data, [5, steps, 76]);

describeUnless(withoutCudaLibrary(), 'cuda devices', () => {
  beforeAll(useCudaLibrary);

  test.each(['cuda', 'cuda:all', 'auto'] as const)('%s gives the bits of cuda:0', async (device) => {
    const one = await HPformer.create(config, { device: 'cuda:0' });
    const model = await HPformer.create(config, { device });
    expect(model.device).toBe(device === 'cuda:all' ? 'cuda:all' : 'cuda:0');
    expect(await model.run({ features })).toEqual(await one.run({ features }));
    expect(model.runSync({ features })).toEqual(one.runSync({ features }));
    model.dispose();
    one.dispose();
  });

  test('a device that is not there is named', async () => {
    await expect(HPformer.create(config, { device: 'cuda:99' })).rejects.toMatchObject({
      code: 'ERR_HPFORMER_DEVICE',
      message: expect.stringMatching(/cuda:99: expected a device of 0\.\.\d+/),
    });
  });
});
