import { endianness } from 'node:os';
import { HPformerError } from '../errors';
import { fromBfloat16, fromFloat16 } from '../tensor/half';

/** Element types of checkpoint files. */
export type ElementType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U64'
  | 'U32'
  | 'U16'
  | 'U8'
  | 'BOOL';

/** Bytes of one element. */
export const elementBytes: Readonly<Record<ElementType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/** A tensor as it lies in a file: little-endian bytes, not copied, elements addressed by strides (in elements). */
export interface StoredTensor {
  readonly type: ElementType;
  readonly dims: readonly number[];
  /** Bytes from the tensor's first element on. */
  readonly bytes: Uint8Array;
  /** Absent: row-major. The reader of the file has proved that all elements lie within `bytes`. */
  readonly strides?: readonly number[];
}

/** A parameter, ready for the model. */
export interface WeightTensor {
  dims: number[];
  data: Float32Array | Float64Array;
}

/** A state dict of any origin, with what its file says besides. */
export interface StateDict {
  tensors: Map<string, StoredTensor>;
  /** Strings beside the tensors (safetensors `__metadata__`). */
  metadata: Record<string, string>;
  /** Training arguments of a fairseq checkpoint. */
  args?: Map<unknown, unknown>;
}

function elementReader(view: DataView, type: ElementType): ((offset: number) => number) | undefined {
  switch (type) {
    case 'F64':
      return (offset) => view.getFloat64(offset, true);
    case 'F32':
      return (offset) => view.getFloat32(offset, true);
    case 'F16':
      return (offset) => fromFloat16(view.getUint16(offset, true));
    case 'BF16':
      return (offset) => fromBfloat16(view.getUint16(offset, true));
    default:
      return undefined;
  }
}

/** Tensors of this many bytes and more are not copied when their bytes are ours. */
const viewBytes = 65536;
const littleEndian = endianness() === 'LE';

/**
 * A stored tensor as a typed array: float16, bfloat16 and float32 as float32 (exact), float64 as it is. A copy, unless `own` says
 * that nobody else has the file's bytes: then a large tensor that lies there as the processor wants it is a view of them.
 *
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` for other element types and for values that are not finite.
 */
export function widen(name: string, tensor: StoredTensor, own = false): WeightTensor {
  const { type, dims, bytes } = tensor;
  const read = elementReader(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), type);
  if (!read) {
    throw new HPformerError(
      'ERR_HPFORMER_CHECKPOINT',
      `${name}: expected floating-point elements (F64, F32, F16, BF16), got ${type}`,
    );
  }
  const count = dims.reduce((a, b) => a * b, 1);
  const size = elementBytes[type];
  const Kind = type === 'F64' ? Float64Array : Float32Array;
  const asItLies = own && littleEndian && size >= 4 && !tensor.strides && count * size >= viewBytes;
  const view = asItLies && bytes.byteOffset % size === 0;
  const data = view ? new Kind(bytes.buffer as ArrayBuffer, bytes.byteOffset, count) : new Kind(count);
  if (view) {
    // Nothing to copy.
  } else if (tensor.strides) copyStrided(data, read, size, dims, tensor.strides);
  else for (let i = 0; i < count; i++) data[i] = read(i * size);
  for (let i = 0; i < count; i++) {
    if (!Number.isFinite(data[i])) {
      throw new HPformerError(
        'ERR_HPFORMER_CHECKPOINT',
        `${name}: expected finite values, got ${data[i]} at element ${i}`,
      );
    }
  }
  return { dims: [...dims], data };
}

/** Row-major copy of elements that lie at strides. */
function copyStrided(
  data: Float32Array | Float64Array,
  read: (offset: number) => number,
  size: number,
  dims: readonly number[],
  strides: readonly number[],
): void {
  const index = dims.map(() => 0);
  let offset = 0;
  for (let i = 0; i < data.length; i++) {
    data[i] = read(offset * size);
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      offset += strides[axis]!;
      if (++index[axis]! < dims[axis]!) break;
      offset -= strides[axis]! * dims[axis]!;
      index[axis] = 0;
    }
  }
}
