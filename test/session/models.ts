import { HPformer, type HPformerConfig, HPformerError, presets, Tensor } from '../../src';

/** A published-size model: long enough to be caught in the middle of a run. */
export const big: HPformerConfig = presets.decompensation();

export function create(options: Parameters<typeof HPformer.create>[1] = {}): Promise<HPformer> {
  return HPformer.create(presets.mortality({ embedding: { kind: 'features', size: 7 }, hidden: 32, layers: 2 }), {
    device: 'cpu',
    seed: 5,
    ...options,
  });
}

/** A batch whose numbers depend on `salt`. */
export function batchOf(batch: number, salt: number, steps = 48, width = 7): { features: Tensor } {
  const data = new Float32Array(batch * steps * width).map((_, i) => Math.sin(i * 0.7 + salt));
  return { features: new Tensor('float32', data, [batch, steps, width]) };
}

/** The bits of a result. */
export function bits(tensor: { data: { buffer: ArrayBufferLike; byteOffset: number; byteLength: number } }): string {
  return Buffer.from(tensor.data.buffer as ArrayBuffer, tensor.data.byteOffset, tensor.data.byteLength).toString('hex');
}

/** What a call ends with: the code of its HPformerError, or `ok`. Any other error is thrown on. */
export async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
    return 'ok';
  } catch (error) {
    if (!(error instanceof HPformerError)) throw error;
    expect(error.message.length).toBeGreaterThan(10);
    return error.code;
  }
}
