import { crc32 } from 'node:zlib';
import { describe } from '../../tensor/shape';
import { refuse } from './fail';

const localSignature = 0x04034b50;
const centralSignature = 0x02014b50;
const endSignature = 0x06054b50;
const end64Signature = 0x06064b50;
const locator64Signature = 0x07064b50;
const saturated16 = 0xffff;
const saturated32 = 0xffffffff;

interface Member {
  name: string;
  size: number;
  crc: number;
  header: number;
}

interface Directory {
  count: number;
  size: number;
  offset: number;
}

/** A 64-bit field as a number; one above 2^53 cannot be a place in the file and stays above every bound. */
function get64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

/** Finds the end record: its comment must reach exactly to the end of the file. */
function findEnd(view: DataView, where: string): number {
  const first = Math.max(0, view.byteLength - 22 - saturated16);
  for (let at = view.byteLength - 22; at >= first; at--) {
    if (view.getUint32(at, true) === endSignature && at + 22 + view.getUint16(at + 20, true) === view.byteLength)
      return at;
  }
  return refuse(where, 'expected the end record of a zip file, found none (is the file cut off?)');
}

/** Where the central directory lies; PyTorch's writer always adds the zip64 records, smaller files need not use them. */
function readDirectory(view: DataView, where: string): Directory {
  const end = findEnd(view, where);
  if (view.getUint16(end + 4, true) !== 0 || view.getUint16(end + 6, true) !== 0) {
    refuse(where, 'expected a zip file in one part, got one of several disks');
  }
  const directory = {
    count: view.getUint16(end + 10, true),
    size: view.getUint32(end + 12, true),
    offset: view.getUint32(end + 16, true),
  };
  let limit = end;
  const locator = end - 20;
  if (locator >= 0 && view.getUint32(locator, true) === locator64Signature) {
    const end64 = get64(view, locator + 8);
    if (end64 > locator - 56 || view.getUint32(end64, true) !== end64Signature) {
      refuse(where, 'the zip64 end record is not where its locator says');
    }
    limit = end64;
    const wide = { count: get64(view, end64 + 32), size: get64(view, end64 + 40), offset: get64(view, end64 + 48) };
    for (const [key, mark] of [
      ['count', saturated16],
      ['size', saturated32],
      ['offset', saturated32],
    ] as const) {
      if (directory[key] !== mark && directory[key] !== wide[key])
        refuse(where, `the two end records disagree on the directory's ${key}`);
      directory[key] = wide[key];
    }
  }
  if (directory.offset > limit || directory.size !== limit - directory.offset) {
    refuse(
      where,
      `the central directory claims bytes ${directory.offset} to ${directory.offset + directory.size}, expected it to end at ${limit}`,
    );
  }
  if (directory.count * 46 > directory.size)
    refuse(where, `${directory.count} members do not fit a directory of ${directory.size} bytes`);
  return directory;
}

/** The values that do not fit 32 bits, from the zip64 extra field, in their fixed order. */
function readExtra64(view: DataView, where: string, begin: number, end: number, wanted: number): number[] {
  for (let at = begin; at + 4 <= end; ) {
    const id = view.getUint16(at, true);
    const size = view.getUint16(at + 2, true);
    if (at + 4 + size > end) break;
    if (id === 1 && size >= 8 * wanted) return Array.from({ length: wanted }, (_, i) => get64(view, at + 4 + 8 * i));
    at += 4 + size;
  }
  return refuse(where, 'a zip64 member lacks its 64-bit sizes');
}

function readMembers(bytes: Uint8Array, view: DataView, where: string, directory: Directory): Member[] {
  const end = directory.offset + directory.size;
  const utf8 = new TextDecoder();
  const members: Member[] = [];
  let at = directory.offset;
  for (let i = 0; i < directory.count; i++) {
    if (at + 46 > end || view.getUint32(at, true) !== centralSignature)
      refuse(where, `expected directory entry ${i} at byte ${at}`);
    const nameEnd = at + 46 + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > end) refuse(where, `directory entry ${i} reaches past the directory`);
    const name = utf8.decode(bytes.subarray(at + 46, nameEnd));
    const here = `${where}: member ${describe(name)}`;
    const method = view.getUint16(at + 10, true);
    if (method !== 0) refuse(here, `expected a stored member, got compression method ${method}`);
    if (view.getUint16(at + 8, true) & 1) refuse(here, 'expected plain bytes, got an encrypted member');
    let packed = view.getUint32(at + 20, true);
    let size = view.getUint32(at + 24, true);
    let header = view.getUint32(at + 42, true);
    const wide = [size, packed, header].filter((field) => field === saturated32).length;
    if (wide > 0) {
      const fields = readExtra64(view, here, nameEnd, extraEnd, wide);
      if (size === saturated32) size = fields.shift()!;
      if (packed === saturated32) packed = fields.shift()!;
      if (header === saturated32) header = fields.shift()!;
    }
    if (packed !== size) refuse(here, `expected equal sizes of a stored member, got ${packed} and ${size}`);
    if (header + 30 > directory.offset || header + 30 + size > directory.offset) {
      refuse(here, `claims ${size} bytes at ${header}, but the directory begins at ${directory.offset}`);
    }
    members.push({ name, size, crc: view.getUint32(at + 16, true), header });
    at = next;
  }
  if (at !== end)
    refuse(
      where,
      `expected ${directory.count} directory entries to fill ${directory.size} bytes, got ${at - directory.offset}`,
    );
  return members;
}

/** The bytes of a member. The local header gives only its own length; sizes there may be zero (data descriptors). */
function readData(
  bytes: Uint8Array,
  view: DataView,
  where: string,
  member: Member,
  limit: number,
): { begin: number; data: Uint8Array } {
  const { header, size, name } = member;
  const here = `${where}: member ${describe(name)}`;
  if (view.getUint32(header, true) !== localSignature) refuse(here, `expected a local header at byte ${header}`);
  const nameEnd = header + 30 + view.getUint16(header + 26, true);
  const begin = nameEnd + view.getUint16(header + 28, true);
  if (begin + size > limit) refuse(here, `claims ${size} bytes at ${begin}, the directory begins at ${limit}`);
  if (new TextDecoder().decode(bytes.subarray(header + 30, nameEnd)) !== name)
    refuse(here, 'its local header has another name');
  const data = bytes.subarray(begin, begin + size);
  if (crc32(data) !== member.crc) refuse(here, 'its checksum (CRC-32) is wrong: the file is damaged');
  return { begin, data };
}

/**
 * Members of a zip file of stored entries, as views of its bytes: sizes and places from the central directory, each checked
 * against the file, against the local header, against each other (no overlap) and by checksum. Nothing is extracted.
 *
 * @throws HPformerError `ERR_HPFORMER_FILE`.
 */
export function readStoredZip(bytes: Uint8Array, where: string): Map<string, Uint8Array> {
  if (bytes.length < 22) refuse(where, `expected a zip file, got ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const directory = readDirectory(view, where);
  const members = readMembers(bytes, view, where, directory).sort((a, b) => a.header - b.header);
  const result = new Map<string, Uint8Array>();
  let used = 0;
  for (const member of members) {
    if (member.header < used) refuse(where, `member ${describe(member.name)} overlaps the one before it`);
    const { begin, data } = readData(bytes, view, where, member, directory.offset);
    used = begin + member.size;
    if (result.has(member.name)) refuse(where, `expected distinct members, got ${describe(member.name)} twice`);
    result.set(member.name, data);
  }
  return result;
}
