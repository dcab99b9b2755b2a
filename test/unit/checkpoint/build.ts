import { crc32 } from 'node:zlib';

/** Builders of well-formed and malformed checkpoint files; each option breaks one thing. */

/** A safetensors file from a raw header text and data. */
export function safetensors(
  header: string | Buffer | object,
  data: Uint8Array = new Uint8Array(0),
  length?: bigint,
): Uint8Array {
  const text = typeof header === 'string' ? header : JSON.stringify(header);
  const json = Buffer.isBuffer(header) ? header : Buffer.from(text);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  return new Uint8Array(Buffer.concat([size, json, data]));
}

export interface MemberOptions {
  method?: number;
  flags?: number;
  crc?: number;
  size?: number;
  packed?: number;
  localName?: string;
  localExtra?: Buffer;
  header?: number;
  zip64?: boolean;
}

/** A zip of stored members, as PyTorch writes it: sizes in the directory, zero in the local headers. */
export function zip(
  members: [name: string, data: Uint8Array, options?: MemberOptions][],
  end: {
    count?: number;
    size?: number;
    offset?: number;
    comment?: string;
    zip64?: boolean;
    disk?: number;
    offset64?: number;
  } = {},
): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, data, options = {}] of members) {
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(8, 6);
    const localName = Buffer.from(options.localName ?? name);
    const localExtra = options.localExtra ?? Buffer.alloc(0);
    local.writeUInt16LE(localName.length, 26);
    local.writeUInt16LE(localExtra.length, 28);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt16LE(options.flags ?? 8, 8);
    central.writeUInt16LE(options.method ?? 0, 10);
    central.writeUInt32LE(options.crc ?? crc32(data), 16);
    const size = options.size ?? data.length;
    const packed = options.packed ?? size;
    const header = options.header ?? at;
    const extra = Buffer.alloc(options.zip64 ? 28 : 0);
    if (options.zip64) {
      extra.writeUInt16LE(1, 0);
      extra.writeUInt16LE(24, 2);
      for (const [i, value] of [size, packed, header].entries()) extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
    }
    central.writeUInt32LE(options.zip64 ? 0xffffffff : packed, 20);
    central.writeUInt32LE(options.zip64 ? 0xffffffff : size, 24);
    central.writeUInt16LE(Buffer.byteLength(name), 28);
    central.writeUInt16LE(extra.length, 30);
    central.writeUInt32LE(options.zip64 ? 0xffffffff : header, 42);
    directory.push(central, Buffer.from(name), extra);
    parts.push(local, localName, localExtra, Buffer.from(data));
    at += 30 + localName.length + localExtra.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const wide = Buffer.alloc(end.zip64 ? 76 : 0);
  if (end.zip64) {
    wide.writeUInt32LE(0x06064b50, 0);
    wide.writeBigUInt64LE(44n, 4);
    wide.writeBigUInt64LE(BigInt(end.count ?? members.length), 24);
    wide.writeBigUInt64LE(BigInt(end.count ?? members.length), 32);
    wide.writeBigUInt64LE(BigInt(end.size ?? size), 40);
    wide.writeBigUInt64LE(BigInt(end.offset64 ?? at), 48);
    wide.writeUInt32LE(0x07064b50, 56);
    wide.writeBigUInt64LE(BigInt(at + size), 64);
    wide.writeUInt32LE(1, 72);
  }
  const last = Buffer.alloc(22);
  last.writeUInt32LE(0x06054b50, 0);
  last.writeUInt16LE(end.disk ?? 0, 4);
  last.writeUInt16LE(end.zip64 ? 0xffff : (end.count ?? members.length), 8);
  last.writeUInt16LE(end.zip64 ? 0xffff : (end.count ?? members.length), 10);
  last.writeUInt32LE(end.zip64 ? 0xffffffff : (end.size ?? size), 12);
  last.writeUInt32LE(end.zip64 ? 0xffffffff : (end.offset ?? at), 16);
  last.writeUInt16LE(Buffer.byteLength(end.comment ?? ''), 20);
  return new Uint8Array(Buffer.concat([...parts, ...directory, wide, last, Buffer.from(end.comment ?? '')]));
}

/** Opcodes of a pickle, as bytes. */
export const op = {
  proto: Buffer.from([0x80, 2]),
  stop: Buffer.from('.'),
  mark: Buffer.from('('),
  tuple: Buffer.from('t'),
  emptyTuple: Buffer.from(')'),
  dict: Buffer.from('}'),
  list: Buffer.from(']'),
  setItems: Buffer.from('u'),
  setItem: Buffer.from('s'),
  append: Buffer.from('a'),
  reduce: Buffer.from('R'),
  newObject: Buffer.from([0x81]),
  build: Buffer.from('b'),
  persistent: Buffer.from('Q'),
  none: Buffer.from('N'),
  false: Buffer.from([0x89]),
  global: (name: string) => Buffer.from(`c${name.replace(/\.([^.]*)$/, '\n$1')}\n`),
  text: (value: string) => {
    const text = Buffer.from(value);
    const head = Buffer.alloc(5);
    head[0] = 0x58;
    head.writeUInt32LE(text.length, 1);
    return Buffer.concat([head, text]);
  },
  integer: (value: number) => {
    const bytes = Buffer.alloc(10);
    bytes[0] = 0x8a;
    bytes[1] = 8;
    bytes.writeBigInt64LE(BigInt(value), 2);
    return bytes;
  },
  put: (index: number) => Buffer.from([0x71, index]),
  get: (index: number) => Buffer.from([0x68, index]),
};

const tupleOf = (...items: Buffer[]) => Buffer.concat([op.mark, ...items, op.tuple]);

export interface TensorOptions {
  storage?: string;
  key?: string;
  count: number;
  offset?: number;
  dims: number[];
  strides: number[];
  parameter?: boolean;
  view?: Buffer;
}

/** The opcodes of one tensor over a storage. */
export function tensor(options: TensorOptions): Buffer {
  const storage = tupleOf(
    op.text('storage'),
    op.global(`torch.${options.storage ?? 'FloatStorage'}`),
    op.text(options.key ?? '0'),
    op.text('cpu'),
    op.integer(options.count),
    ...(options.view ? [options.view] : []),
  );
  const hooks = Buffer.concat([op.global('collections.OrderedDict'), op.emptyTuple, op.reduce]);
  const rebuilt = Buffer.concat([
    op.global('torch._utils._rebuild_tensor_v2'),
    tupleOf(
      Buffer.concat([storage, op.persistent]),
      op.integer(options.offset ?? 0),
      tupleOf(...options.dims.map(op.integer)),
      tupleOf(...options.strides.map(op.integer)),
      op.false,
      hooks,
    ),
    op.reduce,
  ]);
  if (!options.parameter) return rebuilt;
  return Buffer.concat([op.global('torch._utils._rebuild_parameter'), tupleOf(rebuilt, op.false, hooks), op.reduce]);
}

/** A whole pickle. */
export const pickle = (...body: Buffer[]) => new Uint8Array(Buffer.concat([op.proto, ...body, op.stop]));

/** The opcodes of a dict. */
export const dict = (items: Record<string, Buffer>) =>
  Buffer.concat([
    op.dict,
    op.mark,
    ...Object.entries(items).flatMap(([key, value]) => [op.text(key), value]),
    op.setItems,
  ]);

/** A zip-form checkpoint of a pickled object and its storages. */
export function torchZip(
  root: Buffer,
  storages: Record<string, Uint8Array> = {},
  more: Record<string, Uint8Array> = {},
): Uint8Array {
  const members = Object.entries({ 'data.pkl': pickle(root), ...more }).map(([name, data]): [string, Uint8Array] => [
    `top/${name}`,
    data,
  ]);
  for (const [key, data] of Object.entries(storages)) members.push([`top/data/${key}`, data]);
  return zip(members);
}

/** A legacy checkpoint. */
export function torchLegacy(
  root: Buffer,
  storages: [key: string, count: number, data: Uint8Array][],
  options: { protocol?: number; little?: boolean } = {},
) {
  const parts: Uint8Array[] = [
    Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'),
    pickle(op.integer(options.protocol ?? 1001)),
    pickle(op.dict, op.text('little_endian'), Buffer.from([options.little === false ? 0x89 : 0x88]), op.setItem),
    pickle(root),
    pickle(op.list, ...storages.flatMap(([key]) => [op.text(key), op.append])),
  ];
  for (const [, count, data] of storages) {
    const size = Buffer.alloc(8);
    size.writeBigInt64LE(BigInt(count));
    parts.push(size, data);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** Bytes of float32 values. */
export const floats = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);
