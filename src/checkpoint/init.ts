import type { HPformerConfig } from '../config/types';
import { HPformerError } from '../errors';
import { describe } from '../tensor/shape';
import { parameterShapes, positionOffset } from './names';
import { Random } from './random';
import type { WeightTensor } from './tensors';

type Draw = (random: Random) => number;

const uniform =
  (bound: number): Draw =>
  (random) =>
    (2 * random.uniform() - 1) * bound;

const normal =
  (deviation: number): Draw =>
  (random) =>
    random.normal() * deviation;

/** How one parameter starts: a constant or independent draws. */
function startOf(
  config: HPformerConfig,
  name: string,
  dims: readonly number[],
  shapes: Map<string, readonly number[]>,
): number | Draw {
  if (/(^embeddingNorm|\.norm[12])\./.test(name)) return /\.(weight|variance)$/.test(name) ? 1 : 0;
  const deviation = 1 / Math.sqrt(config.hidden);
  if (name === 'positions.weight') return normal(deviation);
  if (name.startsWith('embedding.') && config.embedding.kind === 'tokens') return normal(deviation);
  if (name === 'embedding.weight' && config.embedding.kind === 'scalar') return normal(1);
  if (name === 'embedding.bias' && config.embedding.kind === 'scalar') return normal(0.1);
  // What is left is linear. PyTorch: weight and bias uniform in ±1/√fan_in.
  const weightDims = name.endsWith('.bias') ? shapes.get(name.replace(/bias$/, 'weight'))! : dims;
  const [fanOut, fanIn] = weightDims as [number, number];
  // The mean-pooling variant of the long-range code starts its head Xavier-uniform with zero bias (reference 3.4).
  const xavier = name.startsWith('head.') && config.embedding.kind !== 'features' && config.segments.pooling === 'mean';
  if (xavier) return name.endsWith('.bias') ? 0 : uniform(Math.sqrt(6 / (fanIn + fanOut)));
  return uniform(1 / Math.sqrt(fanIn));
}

/** All health layers start as copies of one template (reference section 4). */
function streamOf(config: HPformerConfig, name: string): string {
  return config.embedding.kind === 'features' ? name.replace(/^layers\.\d+\./, 'layers.0.') : name;
}

/**
 * Random weights by the upstream initialisation, in float32; the same bits for the same seed on every platform.
 *
 * - Linear layers: weight and bias uniform in ±1/√fan_in (PyTorch's default); norms 1 and 0, running variance 1.
 * - features: all layers start with the same values, as upstream copies them from one template.
 * - tokens and learned positions: normal with deviation hidden^−½ (a learned row of the padding id is zero);
 *   scalar: weight normal with deviation 1, bias 0.1.
 * - tokens and scalar with mean pooling: head weights Xavier-uniform, biases 0 (the published variant with max pooling
 *   has PyTorch's default there).
 *
 * @param seed non-negative safe integer, default 0.
 * @throws HPformerError `ERR_HPFORMER_RANGE` for another seed, `ERR_HPFORMER_MEMORY` when the weights do not fit.
 */
export function initialWeights(config: HPformerConfig, seed = 0): Map<string, WeightTensor> {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new HPformerError(
      'ERR_HPFORMER_RANGE',
      `seed: expected an integer from 0 to ${Number.MAX_SAFE_INTEGER}, got ${describe(seed)}`,
    );
  }
  const shapes = parameterShapes(config);
  const weights = new Map<string, WeightTensor>();
  for (const [name, dims] of shapes) {
    const data = allocate(name, dims);
    const start = startOf(config, name, dims, shapes);
    if (typeof start === 'number') data.fill(start);
    else {
      const random = new Random(seed, streamOf(config, name));
      for (let i = 0; i < data.length; i++) data[i] = start(random);
    }
    if (name === 'positions.weight') zeroPaddingRow(config, data);
    weights.set(name, { dims: [...dims], data });
  }
  return weights;
}

function zeroPaddingRow(config: HPformerConfig, data: Float32Array): void {
  const offset = positionOffset(config);
  if (offset > 0) data.fill(0, (offset - 1) * config.hidden, offset * config.hidden);
}

function allocate(name: string, dims: readonly number[]): Float32Array {
  const count = dims.reduce((a, b) => a * b, 1);
  try {
    return new Float32Array(count);
  } catch (cause) {
    throw new HPformerError(
      'ERR_HPFORMER_MEMORY',
      `${name}: cannot allocate [${dims.join(', ')}] float32 numbers (${4 * count} bytes)`,
      { cause },
    );
  }
}
