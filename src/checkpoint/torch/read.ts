import { HPformerError } from '../../errors';
import { elementBytes, type StateDict, type StoredTensor } from '../tensors';
import { refuse, show } from './fail';
import { unpickle } from './unpickle';
import { PickleObject, type PickleValue, type StorageRef, TensorRef } from './values';
import { readStoredZip } from './zip';

const legacyMagic = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
const legacyProtocol = 1001;

/** Which PyTorch form the bytes have, if any. */
export function torchFormOf(bytes: Uint8Array): 'zip' | 'legacy' | undefined {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return 'zip';
  return legacyMagic.every((byte, i) => bytes[i] === byte) ? 'legacy' : undefined;
}

/** Finds the bytes of a storage and checks that they are as many as the pickle says. */
type Storages = (storage: StorageRef) => Uint8Array;

function readZip(bytes: Uint8Array, where: string): { root: PickleValue; storages: Storages } {
  const members = readStoredZip(bytes, where);
  const tops = [...members.keys()]
    .filter((name) => /^[^/]+\/data\.pkl$/.test(name))
    .map((name) => name.slice(0, -'data.pkl'.length));
  if (tops.length !== 1) refuse(where, `expected one data.pkl in a top folder, got ${tops.length}`);
  const top = tops[0]!;
  const order = members.get(`${top}byteorder`);
  if (order && new TextDecoder().decode(order).trim() !== 'little') refuse(where, 'expected little-endian tensors');
  const pickle = members.get(`${top}data.pkl`)!;
  const { value: root, end } = unpickle(pickle, 0, where);
  if (end !== pickle.length) refuse(where, `data.pkl: expected its end at byte ${end}, got ${pickle.length}`);
  const storages: Storages = (storage) => {
    const data = members.get(`${top}data/${storage.key}`);
    if (!data) return refuse(where, `storage ${show(storage.key)} is missing`);
    return checkSize(where, storage, data);
  };
  return { root, storages };
}

function checkSize(where: string, storage: StorageRef, data: Uint8Array): Uint8Array {
  const needed = storage.count * elementBytes[storage.type];
  if (data.length !== needed) {
    refuse(
      where,
      `storage ${show(storage.key)}: ${storage.count} ${storage.type} elements need ${needed} bytes, got ${data.length}`,
    );
  }
  return data;
}

/** Reference section 6: five pickles, then for each storage an int64 element count and the raw data. */
function readLegacy(bytes: Uint8Array, where: string): { root: PickleValue; storages: Storages } {
  let at = 0;
  const next = () => {
    const { value, end } = unpickle(bytes, at, where);
    at = end;
    return value;
  };
  next(); // the magic number, already compared
  const protocol = next();
  if (protocol !== legacyProtocol) refuse(where, `expected legacy protocol ${legacyProtocol}, got ${show(protocol)}`);
  const system = next();
  if (!(system instanceof Map) || system.get('little_endian') !== true)
    refuse(where, 'expected a file written on a little-endian machine');
  const root = next();
  const keys = next();
  if (!Array.isArray(keys)) refuse(where, `expected a list of storage keys, got ${show(keys)}`);

  const types = storageTypes(root);
  const found = new Map<string, { data: Uint8Array }>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of keys) {
    const storage = typeof key === 'string' ? types.get(key) : undefined;
    if (!storage) refuse(where, `storage ${show(key)} belongs to no tensor`);
    if (found.has(storage.key)) refuse(where, `storage ${show(key)} is listed twice`);
    if (at + 8 > bytes.length)
      refuse(where, `storage ${show(key)}: expected its size at byte ${at}, got the end of the file`);
    const count = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    const size = storage.count * elementBytes[storage.type];
    if (count !== storage.count || size > bytes.length - at - 8) {
      refuse(
        where,
        `storage ${show(key)}: expected ${storage.count} elements, got ${count} (${bytes.length - at - 8} bytes left)`,
      );
    }
    found.set(storage.key, { data: bytes.subarray(at + 8, at + 8 + size) });
    at += 8 + size;
  }
  if (at !== bytes.length) refuse(where, `expected the end of the file at byte ${at}, got ${bytes.length} bytes`);
  const storages: Storages = (storage) => {
    const entry = found.get(storage.key);
    if (!entry) return refuse(where, `storage ${show(storage.key)} is missing`);
    return checkSize(where, storage, entry.data);
  };
  return { root, storages };
}

/** Every storage that the object mentions, by key. Walks with a list of its own, so depth costs no stack. */
function storageTypes(root: PickleValue): Map<string, StorageRef> {
  const types = new Map<string, StorageRef>();
  const seen = new Set<unknown>();
  const waiting: unknown[] = [root];
  while (waiting.length > 0) {
    const value = waiting.pop();
    if (typeof value !== 'object' || value === null || seen.has(value)) continue;
    seen.add(value);
    if (value instanceof TensorRef) types.set(value.storage.key, value.storage);
    else if (value instanceof Map) for (const [key, item] of value) waiting.push(key, item);
    else if (Array.isArray(value)) for (const item of value) waiting.push(item);
    else if (value instanceof PickleObject) waiting.push(value.args, value.state);
  }
  return types;
}

/** Files that keep the state dict inside another dict; fairseq's `model` first. */
const wrappers = ['model', 'state_dict', 'model_state_dict'];

function stateDictOf(root: PickleValue, where: string): { dict: Map<unknown, unknown>; args?: Map<unknown, unknown> } {
  if (!(root instanceof Map)) {
    throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: expected a state dict, got ${show(root)}`);
  }
  for (const key of wrappers) {
    const inner = root.get(key);
    if (!(inner instanceof Map)) continue;
    const args = root.get('args');
    return args instanceof PickleObject && args.state instanceof Map
      ? { dict: inner, args: args.state }
      : { dict: inner };
  }
  return { dict: root };
}

function storedTensor(tensor: TensorRef, storages: Storages): StoredTensor {
  const { storage, offset, dims, strides } = tensor;
  const begin = offset * elementBytes[storage.type];
  return { type: storage.type, dims, strides, bytes: storages(storage).subarray(begin) };
}

/**
 * Reads a PyTorch checkpoint, zip or legacy form: a state dict, or one inside a dict (fairseq's `model`). Executes nothing.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE` for a malformed or disallowed file, `ERR_HPFORMER_CHECKPOINT` when it holds
 * something else than a state dict.
 */
export function readTorch(bytes: Uint8Array, where = '.pt'): StateDict {
  const { root, storages } = torchFormOf(bytes) === 'zip' ? readZip(bytes, where) : readLegacy(bytes, where);
  const { dict, args } = stateDictOf(root, where);
  const tensors = new Map<string, StoredTensor>();
  for (const [key, value] of dict) {
    if (typeof key !== 'string' || !(value instanceof TensorRef)) {
      throw new HPformerError(
        'ERR_HPFORMER_CHECKPOINT',
        `${where}: expected names and tensors, got ${show(key)}: ${show(value)}`,
      );
    }
    tensors.set(key, storedTensor(value, storages));
  }
  if (tensors.size === 0)
    throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${where}: expected a state dict, got an empty dict`);
  return { tensors, metadata: {}, ...(args && { args }) };
}
