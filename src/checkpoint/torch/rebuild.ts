import { refuse, show } from './fail';
import { PickleGlobal, PickleObject, type PickleValue, StorageRef, TensorRef } from './values';

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function sizes(where: string, what: string, value: unknown): number[] {
  if (!Array.isArray(value) || value.length > 32 || !value.every(isSize))
    refuse(where, `expected ${what} of non-negative integers, got ${show(value)}`);
  return value as number[];
}

/** `('storage', class, key, device, elements[, view])`: the only persistent id that a checkpoint has (reference section 6). */
export function storageOf(where: string, id: PickleValue): StorageRef {
  if (!Array.isArray(id) || id.length < 5 || id.length > 6 || id[0] !== 'storage')
    refuse(where, `expected a storage, got ${show(id)}`);
  const [, type, key, , count, view] = id as PickleValue[];
  if (!(type instanceof PickleGlobal) || type.kind.does !== 'storage')
    refuse(where, `expected a storage class, got ${show(type)}`);
  if (typeof key !== 'string' || !isSize(count))
    refuse(where, `expected the key and size of a storage, got ${show(key)} and ${show(count)}`);
  let offset = 0;
  if (view !== undefined && view !== null) {
    // Legacy files: (key of the view, first element, number of elements).
    const [, first, length] = Array.isArray(view) ? view : [];
    if (!isSize(first) || !isSize(length) || first + length > count)
      refuse(where, `storage ${show(key)}: its view lies outside of it`);
    offset = first;
  }
  return new StorageRef(type.kind.type, key, count, offset);
}

/** `(storage, offset, size, stride, …)`: every element must lie inside the storage. */
function tensorOf(where: string, args: PickleValue[]): TensorRef {
  const [storage, offset, size, stride] = args;
  if (!(storage instanceof StorageRef)) refuse(where, `expected a tensor's storage, got ${show(storage)}`);
  if (!isSize(offset)) refuse(where, `expected a tensor's offset, got ${show(offset)}`);
  const dims = sizes(where, 'the size of a tensor', size);
  const strides = sizes(where, 'the strides of a tensor', stride);
  if (dims.length !== strides.length) refuse(where, `expected ${dims.length} strides, got ${strides.length}`);
  const first = storage.offset + offset;
  const count = dims.reduce((a, b) => a * b, 1);
  // An expanded tensor (stride 0) could claim any size; no stored weight is larger than its storage.
  const last = dims.reduce((sum, dim, axis) => sum + Math.max(0, dim - 1) * strides[axis]!, first);
  if (
    !Number.isSafeInteger(count) ||
    count > storage.count ||
    (count > 0 && last >= storage.count) ||
    first > storage.count
  ) {
    refuse(
      where,
      `a tensor [${dims.join(', ')}] at element ${first} with strides [${strides.join(', ')}] does not lie in its storage of ${storage.count}`,
    );
  }
  return new TensorRef(storage, first, dims, strides);
}

/** REDUCE: what calling a global of the allow-list means here. Nothing is ever called. */
export function reduce(where: string, callee: PickleValue, args: PickleValue): PickleValue {
  if (!(callee instanceof PickleGlobal)) refuse(where, `expected an allowed class or function, got ${show(callee)}`);
  if (!Array.isArray(args)) refuse(where, `${callee.name}: expected a tuple of arguments, got ${show(args)}`);
  switch (callee.kind.does) {
    case 'dict':
      return dictOf(where, args);
    case 'tensor':
      return tensorOf(where, args);
    case 'parameter':
      if (!(args[0] instanceof TensorRef)) refuse(where, `expected a parameter's tensor, got ${show(args[0])}`);
      return args[0];
    case 'inert':
      return new PickleObject(callee.name, args);
    case 'storage':
      return refuse(where, `${callee.name}: expected a storage kept beside the pickle, got one inside it`);
  }
}

/** `OrderedDict([[key, value], …])`, as Python 2 wrote it, or with no argument. */
function dictOf(where: string, args: PickleValue[]): Map<unknown, unknown> {
  const result = new Map<unknown, unknown>();
  const items = Array.isArray(args[0]) ? args[0] : [];
  for (const item of items) {
    if (!Array.isArray(item) || item.length !== 2)
      refuse(where, `expected pairs of an ordered dict, got ${show(item)}`);
    result.set(item[0], item[1]);
  }
  return result;
}
