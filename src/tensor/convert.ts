import { HPformerError } from '../errors';
import { fromBfloat16, fromFloat16 } from './half';
import { describe } from './shape';
import { arrayName, checkTensor, type TensorLike, type TensorType } from './tensor';

/** A feed or parameter whose type, array and dims have been proved to agree. */
export interface CheckedTensor {
  readonly type: TensorType;
  /** The array that `type` names (float16 also as a Float16Array, where the runtime has it). */
  readonly data: ArrayLike<number> | BigInt64Array;
  readonly dims: readonly number[];
}

const bareTypes: Record<string, TensorType> = {
  Float64Array: 'float64',
  Float32Array: 'float32',
  Float16Array: 'float16',
  Int32Array: 'int32',
  BigInt64Array: 'int64',
  Uint8Array: 'uint8',
};

/**
 * Reads a tensor of any origin, or a bare typed array whose dims `bareDims` derives from its length.
 * Every property is read once, so that a getter cannot answer differently later.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_SHAPE`.
 */
export function readTensor(
  where: string,
  value: unknown,
  bareDims: (length: number, array: string) => number[],
): CheckedTensor {
  const array = arrayName(value);
  if (array !== undefined) {
    const type = bareTypes[array];
    if (type === undefined) {
      const why = array === 'Uint16Array' ? ' (float16 or bfloat16 bits: say which with a tensor)' : '';
      throw new HPformerError(
        'ERR_HPFORMER_TYPE',
        `${where}: expected a tensor or a typed array of a known type, got ${array}${why}`,
      );
    }
    const data = value as ArrayLike<number>;
    return { type, data, dims: bareDims(data.length, array) };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `${where}: expected a tensor { type, data, dims } or a typed array, got ${describe(value)}`,
    );
  }
  let read: TensorLike;
  try {
    // onnxruntime's getters throw when the data is on another device or disposed.
    const { type, data, dims } = value as TensorLike;
    read = { type, data, dims: Array.isArray(dims) ? dims.slice() : dims };
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : describe(cause);
    throw new HPformerError('ERR_HPFORMER_INPUT', `${where}: the tensor could not be read: ${said}`, { cause });
  }
  checkTensor(where, read);
  return read as CheckedTensor;
}

/**
 * Real numbers as the device takes them: the same array where it already is one, else a converted copy.
 * @param integers - also take integer and bool tensors (weights of a readout, for example).
 * @throws HPformerError `ERR_HPFORMER_TYPE`.
 */
export function toReal(
  where: string,
  tensor: CheckedTensor,
  double: boolean,
  integers = false,
): Float32Array | Float64Array {
  const { type, data } = tensor;
  if (type === (double ? 'float64' : 'float32')) return data as Float32Array | Float64Array;
  const make = (n: number) => (double ? new Float64Array(n) : new Float32Array(n));
  switch (type) {
    case 'float32':
    case 'float64':
      return double ? new Float64Array(data as ArrayLike<number>) : new Float32Array(data as ArrayLike<number>);
    case 'float16':
    case 'bfloat16': {
      if (arrayName(data) === 'Float16Array')
        return double ? new Float64Array(data as ArrayLike<number>) : new Float32Array(data as ArrayLike<number>);
      const bits = data as Uint16Array;
      const out = make(bits.length);
      const decode = type === 'float16' ? fromFloat16 : fromBfloat16;
      for (let i = 0; i < bits.length; i++) out[i] = decode(bits[i]!);
      return out;
    }
    default: {
      if (!integers) {
        throw new HPformerError(
          'ERR_HPFORMER_TYPE',
          `${where}: expected real numbers (float32, float64, float16 or bfloat16), got ${type}`,
        );
      }
      const out = make(data.length);
      for (let i = 0; i < data.length; i++) out[i] = Number(data[i]);
      return out;
    }
  }
}

/** Where the low half of a 64-bit integer lies. */
const lowHalf = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 0 : 1;

/**
 * Integers as int32: the same array where it already is one, else a converted copy, each value checked before narrowing.
 * @param matters - false for elements that nobody will read: whatever stands there is no error.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `ERR_HPFORMER_RANGE`.
 */
export function toInt32(
  where: string,
  tensor: CheckedTensor,
  matters: (element: number) => boolean = () => true,
): Int32Array {
  const { type, data } = tensor;
  switch (type) {
    case 'int32':
      return data as Int32Array;
    case 'uint8':
      return Int32Array.from(data as Uint8Array);
    case 'int64': {
      const wide = data as BigInt64Array;
      // By halves: reading an element as a BigInt would make an object for each.
      const halves = new Int32Array(wide.buffer, wide.byteOffset, 2 * wide.length);
      const out = new Int32Array(wide.length);
      for (let i = 0; i < out.length; i++) {
        const low = halves[2 * i + lowHalf]!;
        out[i] = low;
        if (halves[2 * i + 1 - lowHalf] === low >> 31) continue;
        if (matters(i)) {
          throw new HPformerError(
            'ERR_HPFORMER_RANGE',
            `${where}: expected integers that fit 32 bits, got ${wide[i]} at element ${i}`,
          );
        }
      }
      return out;
    }
    default:
      throw new HPformerError('ERR_HPFORMER_TYPE', `${where}: expected integers (int32, int64 or uint8), got ${type}`);
  }
}
