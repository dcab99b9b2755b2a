import { HPformerError } from '../errors';
import { describe, elementCount } from '../tensor/shape';
import { type Json, parseJson } from './json';
import { type ElementType, elementBytes, type StateDict, type StoredTensor } from './tensors';

/** The format's own cap on the JSON header. */
const headerLimit = 100_000_000;

function fail(where: string, message: string): never {
  throw new HPformerError('ERR_HPFORMER_FILE', `${where}: ${message}`);
}

/** Name, type, shape and place of a tensor, all checked; nothing is allocated by a size that the file claims. */
interface Entry {
  name: string;
  type: ElementType;
  dims: number[];
  begin: number;
  end: number;
}

const isSize = (item: unknown) => Number.isSafeInteger(item) && (item as number) >= 0 && !Object.is(item, -0);

function readEntry(where: string, name: string, value: Json): Entry {
  const wrong = (message: string): never => fail(`${where}: tensor ${describe(name)}`, message);
  if (!(value instanceof Map)) return wrong(`expected an object, got ${describe(value)}`);
  for (const key of value.keys()) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') wrong(`unknown key ${describe(key)}`);
  }
  const type = value.get('dtype');
  if (typeof type !== 'string' || !Object.hasOwn(elementBytes, type)) {
    wrong(`expected dtype ${Object.keys(elementBytes).join(', ')}, got ${describe(type)}`);
  }
  const dims = value.get('shape');
  if (!Array.isArray(dims) || dims.length > 32 || !dims.every(isSize))
    return wrong(`expected a shape of non-negative integers, got ${describe(dims)}`);
  const offsets = value.get('data_offsets');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) || offsets[0]! > offsets[1]!) {
    return wrong(`expected data_offsets [begin, end], got ${describe(offsets)}`);
  }
  // A copy has no room to spare; the list that grew while it was read has room for 17.
  const entry = { name, type: type as ElementType, dims: dims.slice() as number[], begin: 0, end: 0 };
  [entry.begin, entry.end] = offsets as [number, number];
  const count = entry.dims.reduce((a, b) => a * b, 1);
  if (!Number.isSafeInteger(count)) wrong(`the product of dims [${dims.join(', ')}] is too large`);
  const bytes = count * elementBytes[entry.type];
  if (bytes !== entry.end - entry.begin)
    wrong(`${type} [${dims.join(', ')}] needs ${bytes} bytes, got ${entry.end - entry.begin}`);
  return entry;
}

function readMetadata(where: string, value: Json, metadata: Record<string, string>): void {
  if (!(value instanceof Map)) fail(where, `expected __metadata__ to be an object, got ${describe(value)}`);
  for (const [key, text] of value as Map<string, Json>) {
    if (typeof text !== 'string')
      fail(where, `expected metadata ${describe(key)} to be a string, got ${describe(text)}`);
    Object.defineProperty(metadata, key, { value: text, enumerable: true, writable: true, configurable: true });
  }
}

/** The tensors must cover the buffer: no overlap, no gap, nothing before or after. */
function checkCover(where: string, entries: Entry[], size: number): void {
  let end = 0;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== end) {
      const what = entry.begin < end ? 'overlaps the tensor before it' : 'leaves a gap before it';
      fail(where, `tensor ${describe(entry.name)} ${what}: expected it to begin at ${end}, got ${entry.begin}`);
    }
    end = entry.end;
  }
  if (end !== size) fail(where, `expected ${end} bytes of tensors after the header, got ${size}`);
}

/**
 * Reads a safetensors file strictly: header length, JSON with duplicate keys refused, every dtype, shape and offset
 * checked against the bytes at hand before anything is used. Tensors are views of `bytes`.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export function readSafetensors(bytes: Uint8Array, where = 'safetensors'): StateDict {
  if (bytes.length < 8) fail(where, `expected an 8-byte header length, got ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (length > headerLimit) fail(where, `expected a header of at most ${headerLimit} bytes, got ${length}`);
  if (length > bytes.length - 8) fail(where, `the header claims ${length} bytes, got ${bytes.length - 8}`);
  const metadata: Record<string, string> = {};
  const entries: Entry[] = [];
  const header = parseJson(bytes.subarray(8, 8 + length), where, (name, value) => {
    if (name === '__metadata__') readMetadata(where, value, metadata);
    else entries.push(readEntry(where, name, value));
  });
  if (!(header instanceof Map)) fail(where, `expected a JSON object as header, got ${describe(header)}`);
  checkCover(where, entries, bytes.length - 8 - length);
  const tensors = new Map<string, StoredTensor>();
  for (const { name, type, dims, begin, end } of entries) {
    tensors.set(name, { type, dims, bytes: bytes.subarray(8 + length + begin, 8 + length + end) });
  }
  return { tensors, metadata };
}

/** A tensor to write: its bytes are little-endian and row-major. */
export interface WrittenTensor {
  type: ElementType;
  dims: readonly number[];
  bytes: Uint8Array;
}

/**
 * Lays out a safetensors file: widest element types first and the header padded with blanks to a multiple of 8 bytes, so
 * that every tensor is aligned. The same input gives the same bytes.
 *
 * @throws HPformerError `ERR_HPFORMER_SHAPE` when a tensor's bytes are not what its type and dims need.
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, WrittenTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const ordered = [...tensors].sort(([, a], [, b]) => elementBytes[b.type] - elementBytes[a.type]);
  const header: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) header.push(['__metadata__', metadata]);
  let offset = 0;
  for (const [name, { type, dims, bytes }] of ordered) {
    const needed = elementCount(name, dims) * elementBytes[type];
    if (needed !== bytes.length || name === '__metadata__') {
      throw new HPformerError(
        'ERR_HPFORMER_SHAPE',
        `${name}: ${type} [${dims.join(', ')}] needs ${needed} bytes, got ${bytes.length}`,
      );
    }
    header.push([name, { dtype: type, shape: dims, data_offsets: [offset, offset + needed] }]);
    offset += needed;
  }
  // Written by hand: an object would move integer-like names to the front and swallow "__proto__".
  const fields = header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(8 + length + offset);
  new DataView(file.buffer).setUint32(0, length, true);
  file.set(json, 8);
  file.fill(0x20, 8 + json.length, 8 + length);
  let at = 8 + length;
  for (const [, { bytes }] of ordered) {
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}
