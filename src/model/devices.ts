import type { Checkpoint } from '../checkpoint/load';
import { codedError, HPformerError } from '../errors';
import type { NativeAddon, NativeModel } from '../native/addon';
import { loadAddon } from '../native/load';
import { nativeSpec } from '../native/spec';
import { statusError } from '../native/status';
import type { ResolvedOptions } from './options';
import type { DeviceInfo } from './types';

/** Why `auto` gave up on a device in this process when it last tried, by its id; shown by {@link devices}. */
const fallbacks = new Map<string, string>();

/**
 * What this machine offers: the CPU, the float64 reference, CUDA devices; for what is missing, why. Never throws: without
 * a loadable addon every entry says so.
 */
export function devices(): DeviceInfo[] {
  let addon: NativeAddon;
  try {
    addon = loadAddon();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const missing = (id: 'cpu' | 'reference'): DeviceInfo => ({
      ...{ id, kind: id, name: id, available: false, reason, memory: 0, level: '', precisions: [] },
    });
    return [missing('cpu'), missing('reference')];
  }
  const found = addon.info().devices.map((device): DeviceInfo => {
    const failed = fallbacks.get(device.id);
    return {
      id: device.id,
      kind: device.kind,
      name: device.name,
      available: device.available,
      reason: device.reason || (failed === undefined ? '' : `'auto' fell back: ${failed}`),
      memory: device.memory,
      level: device.level,
      precisions: device.available ? ['float32', 'bfloat16'] : [],
    };
  });
  const reference: DeviceInfo = {
    ...{
      id: 'reference',
      kind: 'reference',
      name: 'float64 reference',
      available: true,
      reason: '',
      memory: 0,
      level: '',
    },
    precisions: ['float64'],
  };
  const cpus = found.filter(({ kind }) => kind === 'cpu').length;
  return [...found.slice(0, cpus), reference, ...found.slice(cpus)];
}

/** A packed model on the device that was asked for; `auto` tries CUDA where it is available, then the CPU. */
export async function createNative(
  addon: NativeAddon,
  checkpoint: Checkpoint,
  options: ResolvedOptions,
): Promise<{ native: NativeModel; device: string }> {
  if (options.device !== 'auto') {
    const device = options.device === 'cuda' ? 'cuda:0' : options.device;
    return { native: await createOn(addon, device, checkpoint, options), device };
  }
  const cuda = addon.info().devices.find(({ kind, available }) => kind === 'cuda' && available);
  if (cuda) {
    try {
      const native = await createOn(addon, cuda.id, checkpoint, options);
      fallbacks.delete(cuda.id);
      return { native, device: cuda.id };
    } catch (error) {
      if (!(error instanceof HPformerError) || !['ERR_HPFORMER_DEVICE', 'ERR_HPFORMER_MEMORY'].includes(error.code))
        throw error;
      fallbacks.set(cuda.id, error.message);
    }
  }
  return { native: await createOn(addon, 'cpu', checkpoint, options), device: 'cpu' };
}

function createOn(
  addon: NativeAddon,
  device: string,
  checkpoint: Checkpoint,
  options: ResolvedOptions,
): Promise<NativeModel> {
  const weights: Record<string, Float32Array | Float64Array> = {};
  for (const [name, { data }] of checkpoint.weights) weights[name] = data;
  const { threads, rejectNonFinite } = options;
  const precision = options.precision === 'bfloat16' && device !== 'reference' ? 1 : 0;
  return new Promise((resolve, reject) => {
    try {
      addon.createModel(
        nativeSpec(checkpoint.config),
        weights,
        { device, precision, threads, key: checkpoint.key, rejectNonFinite },
        (code, message, model) => {
          if (code === 0 && model) resolve(model);
          else reject(statusError(code, message));
        },
      );
    } catch (error) {
      reject(codedError('model', error));
    }
  });
}
