/** The package under test, as built in this checkout: its public API, and the ONNX writer behind `hpformer convert`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const root = resolve(__dirname, '../..');
export type Api = typeof import('../../dist/index');
export type Model = Awaited<ReturnType<Api['HPformer']['create']>>;
export type Config = import('../../dist/index').HPformerConfig;
export type Feeds = import('../../dist/index').Feeds;
type OnnxModule = typeof import('../../dist/checkpoint/onnx/index');
type GraphModule = typeof import('../../dist/checkpoint/onnx/graph');
export type OnnxOptions = import('../../dist/checkpoint/onnx/index').OnnxOptions;
export type OnnxVariant = import('../../dist/checkpoint/onnx/index').OnnxVariant;

export const api = (): Api => require(root) as Api;
export const onnx = (): OnnxModule => require(join(root, 'dist/checkpoint/onnx/index.js')) as OnnxModule;
export const onnxGraph = (): GraphModule => require(join(root, 'dist/checkpoint/onnx/graph.js')) as GraphModule;

/** Constants that a peer needs as the package makes them: the position table and the cut into segments. */
export const onnxTables = () => ({
  ...(require(join(root, 'dist/checkpoint/onnx/tables.js')) as typeof import('../../dist/checkpoint/onnx/tables')),
  ...(require(join(root, 'dist/config/segments.js')) as typeof import('../../dist/config/segments')),
});

/** A model's weights by canonical name, read from the file that `save` writes (safetensors, float32). */
export async function weightsOf(model: Model): Promise<Record<string, Float32Array>> {
  const folder = mkdtempSync(join(tmpdir(), 'hpformer-bench-'));
  try {
    const file = join(folder, 'model.safetensors');
    await model.save(file);
    return readSafetensors(readFileSync(file));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** float32 and float64 tensors of a safetensors file, as float32. */
export function readSafetensors(file: Buffer): Record<string, Float32Array> {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const tensors: Record<string, Float32Array> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [start, end] = entry.data_offsets;
    const bytes = new Uint8Array(file.subarray(8 + headerBytes + start, 8 + headerBytes + end));
    if (entry.dtype === 'F32') tensors[name] = new Float32Array(bytes.buffer);
    else if (entry.dtype === 'F64') tensors[name] = Float32Array.from(new Float64Array(bytes.buffer));
  }
  return tensors;
}
