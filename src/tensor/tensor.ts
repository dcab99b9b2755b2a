import { HPformerError } from '../errors';
import { describe, elementCount } from './shape';

/** Element types and the typed array that holds each: float16 and bfloat16 as bits in a Uint16Array, bool as 0/1 bytes. */
export interface TensorDataMap {
  float64: Float64Array;
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int64: BigInt64Array;
  int32: Int32Array;
  uint8: Uint8Array;
  bool: Uint8Array;
}

/** Name of an element type. */
export type TensorType = keyof TensorDataMap;
/** A typed array that can hold some element type. */
export type TensorData = TensorDataMap[TensorType];

/** What is accepted wherever a tensor is: the shape of this class, of onnxruntime-common's and of transformers.js' tensors. */
export interface TensorLike {
  readonly type: string;
  readonly data: unknown;
  readonly dims: readonly number[];
}

const arrayNames: Record<TensorType, string> = {
  float64: 'Float64Array',
  float32: 'Float32Array',
  float16: 'Uint16Array',
  bfloat16: 'Uint16Array',
  int64: 'BigInt64Array',
  int32: 'Int32Array',
  uint8: 'Uint8Array',
  bool: 'Uint8Array',
};

const nameOfArray = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)!
  .get as (this: unknown) => string | undefined;

/** The constructor name of a typed array of any realm, or undefined. */
export function arrayName(value: unknown): string | undefined {
  return nameOfArray.call(value);
}

/** True when `type` names an element type of {@link TensorDataMap}. */
function isTensorType(type: unknown): type is TensorType {
  return typeof type === 'string' && Object.hasOwn(arrayNames, type);
}

/** Set while {@link trustedTensor} builds a tensor whose parts were just made to fit. */
let trusted = false;

/**
 * A dense row-major tensor: `type`, `data` (typed array, see {@link TensorDataMap}) and `dims`.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for an unknown type or the wrong array, `ERR_HPFORMER_SHAPE` when
 * `dims` are not non-negative integers or their product is not the number of elements.
 */
export class Tensor<T extends TensorType = TensorType> {
  readonly type: T;
  readonly data: TensorDataMap[T];
  readonly dims: readonly number[];

  constructor(type: T, data: TensorDataMap[T], dims: readonly number[]) {
    if (!trusted) checkTensor('tensor', { type, data, dims });
    this.type = type;
    this.data = data;
    this.dims = Object.freeze(trusted ? dims : [...dims]);
  }

  /** Number of elements. */
  get size(): number {
    return this.data.length;
  }
}

/** A tensor whose type, array and dims are known to agree; `dims` becomes its own. */
export function trustedTensor<T extends TensorType>(type: T, data: TensorDataMap[T], dims: number[]): Tensor<T> {
  trusted = true;
  try {
    return new Tensor(type, data, dims);
  } finally {
    trusted = false;
  }
}

/** Checks that a value is a well-formed tensor of any origin; `where` begins the message. */
export function checkTensor(where: string, value: TensorLike): asserts value is Tensor {
  if (!isTensorType(value.type)) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `${where}: expected a tensor of type ${Object.keys(arrayNames).join(', ')}, got type ${describe(value.type)}`,
    );
  }
  const name = arrayName(value.data);
  const expected = arrayNames[value.type];
  // Float16Array (Node 24+) is the same bytes as our Uint16Array form.
  if (name !== expected && !(value.type === 'float16' && name === 'Float16Array')) {
    throw new HPformerError(
      'ERR_HPFORMER_TYPE',
      `${where}: a ${value.type} tensor holds a ${expected}, got ${name ?? describe(value.data)}`,
    );
  }
  const count = elementCount(where, value.dims);
  const { length } = value.data as { length: number };
  if (count !== length) {
    throw new HPformerError(
      'ERR_HPFORMER_SHAPE',
      `${where}: dims [${value.dims.join(', ')}] need ${count} elements, got ${length}${length === 0 && count > 0 ? ' (is the buffer detached?)' : ''}`,
    );
  }
}
