/**
 * Seeded mutation of bytes: raw, and aware of what they are: the header of a safetensors file (its length set right again), the members
 * of a zip (their checksums set right again) and the opcodes of the pickle in it, the tree of a JSON text, the lines and fields of a table.
 */
import { zip } from '../unit/checkpoint/build';

type Random = () => number;

/** xorshift32: small, the same on every platform. */
export function generator(seed: number): Random {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

const numbers = [
  '0',
  '-1',
  '1e308',
  '1e999',
  '-0',
  '9007199254740993',
  '2147483648',
  '4294967296',
  'NaN',
  '""',
  'null',
  '[]',
  '{}',
  'true',
];
const boundaries = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x7fffffffffffffffn,
  0xffffffffffffffffn,
];

/** The header of a safetensors file changed and its length set right again, so that the change is seen. */
function mutateHeader(bytes: Uint8Array, random: Random): Uint8Array | undefined {
  if (bytes.length < 10 || bytes[8] !== 0x7b) return undefined;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > bytes.length - 8) return undefined;
  const header = Buffer.from(bytes.subarray(8, 8 + length)).toString('latin1');
  const changed = Buffer.from(mutateText(header, random), 'latin1');
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(changed.length));
  return Buffer.concat([size, changed, bytes.subarray(8 + length)]);
}

/** Values that a reader may not have thought of, for any place of a JSON tree. */
const strange: unknown[] = [
  ...[0, -1, 0.5, 1e308, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), '', 'x', '48', null, true, false, [], {}, [[]]],
  ...['__proto__', 'constructor', '\u0000', '\ud800', '../x', 'NaN'],
];

/** A JSON text with one node changed: replaced, left out, moved to another key, or repeated; undefined when it is no JSON. */
function mutateJson(text: string, random: Random): string | undefined {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch {
    return undefined;
  }
  const places: [holder: Record<string, unknown>, key: string][] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, item] of Object.entries(value)) {
      places.push([value as Record<string, unknown>, key]);
      walk(item);
    }
  };
  walk(root);
  if (places.length === 0) return undefined;
  const [holder, key] = places[random() % places.length]!;
  const [other, from] = places[random() % places.length]!;
  switch (random() % 5) {
    case 0:
    case 1:
      holder[key] = strange[random() % strange.length];
      break;
    case 2:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
      break;
    case 3:
      holder[key] = structuredClone(other[from]);
      break;
    default:
      if (Array.isArray(holder)) holder.push(structuredClone(other[from]));
      else holder[String(strange[random() % strange.length])] = structuredClone(holder[key]);
  }
  return JSON.stringify(root);
}

/** A table with one line repeated, left out, moved, or with one field more, less or of another line. */
function mutateLines(text: string, random: Random): string {
  const lines = text.split('\n');
  const [at, other] = [random() % lines.length, random() % lines.length];
  const fields = lines[at]!.split(',');
  const field = random() % fields.length;
  switch (random() % 6) {
    case 0:
      lines.splice(at, 0, lines[other]!);
      break;
    case 1:
      lines.splice(at, 1);
      break;
    case 2:
      [lines[at], lines[other]] = [lines[other]!, lines[at]!];
      break;
    case 3:
      fields.splice(field, 1);
      lines[at] = fields.join(',');
      break;
    case 4:
      fields.splice(field, 0, numbers[random() % numbers.length]!);
      lines[at] = fields.join(',');
      break;
    default:
      fields[field] = lines[other]!.split(',')[field] ?? '';
      lines[at] = fields.join(',');
  }
  return lines.join(random() % 8 === 0 ? '\r\n' : '\n');
}

/** Every opcode of protocols 0 to 4. */
const opcodes =
  '(.012FNIJKLMVRSTUXabcdeghijlopqrstu}]){BGPQ\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95';

/** A pickle with an opcode put in, changed or taken out, or a piece repeated elsewhere; most of it stays readable. */
function mutatePickle(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random() % Math.max(1, bytes.length);
  const opcode = Uint8Array.of(opcodes.charCodeAt(random() % opcodes.length));
  const from = random() % Math.max(1, bytes.length);
  const piece = bytes.subarray(from, from + (random() % 24));
  switch (random() % 5) {
    case 0:
      return Buffer.concat([bytes.subarray(0, at), opcode, bytes.subarray(at)]);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), opcode, bytes.subarray(at + 1)]);
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + (random() % 4))]);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
    default:
      return mutateRaw(bytes, random);
  }
}

/** The members of a zip without comment whose members are stored, or undefined. */
function membersOf(bytes: Uint8Array): [name: string, data: Uint8Array][] | undefined {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = all.length - 22;
  if (end < 0 || all.readUInt32LE(0) !== 0x04034b50 || all.readUInt32LE(end) !== 0x06054b50) return undefined;
  const members: [string, Uint8Array][] = [];
  let at = all.readUInt32LE(end + 16);
  for (let left = all.readUInt16LE(end + 10); left > 0; left--) {
    if (at + 46 > end) return undefined;
    const [size, header] = [all.readUInt32LE(at + 24), all.readUInt32LE(at + 42)];
    if (header + 30 > end) return undefined;
    const data = header + 30 + all.readUInt16LE(header + 26) + all.readUInt16LE(header + 28);
    if (data + size > end) return undefined;
    const length = all.readUInt16LE(at + 28);
    members.push([all.toString('latin1', at + 46, at + 46 + length), all.subarray(data, data + size)]);
    at += 46 + length + all.readUInt16LE(at + 30) + all.readUInt16LE(at + 32);
  }
  return members;
}

/** A zip with one member changed (the pickle, mostly), and checksums that are right again. */
function mutateZip(bytes: Uint8Array, random: Random): Uint8Array | undefined {
  const members = membersOf(bytes);
  if (!members || members.length === 0) return undefined;
  const pickles = members.filter(([name]) => name.endsWith('.pkl'));
  const member = random() % 4 > 0 && pickles.length > 0 ? pickles[0]! : members[random() % members.length]!;
  const other = members[random() % members.length]!;
  switch (random() % 8) {
    case 0:
      members.splice(members.indexOf(member), 1);
      break;
    case 1:
      member[0] = random() % 2 === 0 ? other[0] : `${member[0]}x`;
      break;
    case 2:
      member[1] = other[1];
      break;
    default:
      member[1] = member[0].endsWith('.pkl') ? mutatePickle(member[1], random) : mutateRaw(member[1], random);
  }
  return zip(members);
}

function mutateText(text: string, random: Random): string {
  const choice = random() % 3;
  if (choice === 0) {
    const changed = mutateJson(text, random);
    if (changed !== undefined) return changed;
  }
  if (choice !== 1 && text.includes('\n')) return mutateLines(text, random);
  const tokens = [...text.matchAll(/-?\d+(\.\d+)?|"[^"]*"|[A-Za-z_]+/g)];
  const token = tokens[random() % Math.max(1, tokens.length)];
  if (token === undefined) return text;
  const other = tokens[random() % tokens.length]![0];
  const replacement = [numbers[random() % numbers.length]!, other, '', token[0] + token[0], `${token[0]},${other}`][
    random() % 5
  ]!;
  return text.slice(0, token.index) + replacement + text.slice(token.index + token[0].length);
}

/** One mutated copy. */
export function mutate(seed: Uint8Array, random: Random): Uint8Array {
  if (random() % 3 > 0) {
    const aware = mutateHeader(seed, random) ?? mutateZip(seed, random);
    if (aware) return aware;
    if (seed.length < 100_000 && !seed.includes(0))
      return Buffer.from(mutateText(Buffer.from(seed).toString('latin1'), random), 'latin1');
  }
  return mutateRaw(seed, random);
}

/** Case `i` of a seed over a target's files: always the same file, whatever ran before. */
export function caseOf(seeds: Uint8Array[], seed: number, i: number): Uint8Array {
  const random = generator(Math.imul(seed ^ Math.imul(i + 1, 0x9e3779b1), 0x85ebca6b));
  for (let warm = 0; warm < 4; warm++) random();
  let bytes = mutate(seeds[random() % seeds.length]!, random);
  while (random() % 3 === 0) bytes = mutate(bytes, random);
  return bytes;
}

/** Bytes changed without a thought for what they are. */
function mutateRaw(seed: Uint8Array, random: Random): Uint8Array {
  const bytes = Uint8Array.from(seed);
  const at = () => random() % Math.max(1, bytes.length);
  // Headers, directories and pickles stand at the ends: half of the changes go there.
  const near = () =>
    random() % 2 === 0 ? at() : random() % 2 === 0 ? at() % 512 : Math.max(0, bytes.length - 1 - (at() % 512));
  for (let changes = 1 + (random() % 4); changes > 0; changes--) {
    switch (random() % 5) {
      case 0:
        bytes[near()] = random() & 0xff;
        break;
      case 1:
        bytes[near()]! ^= 1 << (random() % 8);
        break;
      case 2: {
        const where = near();
        const width = [1, 2, 4, 8][random() % 4]!;
        const value = boundaries[random() % boundaries.length]!;
        for (let i = 0; i < width && where + i < bytes.length; i++)
          bytes[where + i] = Number((value >> BigInt(8 * i)) & 0xffn);
        break;
      }
      case 3:
        return bytes.subarray(0, near());
      default: {
        const [from, to] = [at(), near()];
        bytes.copyWithin(to, from, from + (random() % 64));
      }
    }
  }
  return bytes;
}
