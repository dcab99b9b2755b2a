/** The exact places where readers change their mind, found by mutants that no other test noticed (test/tools/mutation.cjs). */
import fc from 'fast-check';
import { initialWeights } from '../../../src/checkpoint/init';
import { type Json, parseJson } from '../../../src/checkpoint/json';
import { parseCheckpoint } from '../../../src/checkpoint/load';
import { readSafetensors } from '../../../src/checkpoint/safetensors';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { readTorch } from '../../../src/checkpoint/torch/read';
import { readStoredZip } from '../../../src/checkpoint/torch/zip';
import { presets } from '../../../src/config/presets';
import { seed } from '../../seed';
import { dict, floats, safetensors, tensor, torchZip, zip } from './build';
import { errorOf } from './support';

const bytes = (text: string) => new Uint8Array(Buffer.from(text));
const plain = (value: Json): unknown =>
  value instanceof Map
    ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]))
    : Array.isArray(value)
      ? value.map(plain)
      : value;

describe('JSON', () => {
  test(`any JSON is read as JSON.parse reads it, blanks anywhere (seed=${seed})`, () => {
    const blank = fc.array(fc.constantFrom(' ', '\t', '\n', '\r'), { maxLength: 3 }).map((list) => list.join(''));
    fc.assert(
      fc.property(fc.json({ maxDepth: 4, noUnicodeString: false } as object), blank, (text, space) => {
        const spaced =
          space + text.replace(/([[\]{}:,])(?=(?:[^"\\]|\\.|"(?:[^"\\]|\\.)*")*$)/g, `${space}$1${space}`) + space;
        for (const each of [text, spaced]) {
          const expected = JSON.stringify(JSON.parse(each));
          expect(JSON.stringify(plain(parseJson(bytes(each), 'x')))).toBe(expected);
        }
      }),
      { seed, numRuns: 300 },
    );
  });

  test('strings that end in backslashes and quotes', () => {
    for (const text of ['a\\', '\\\\', '"', '\\"', 'a"b\\"', '', '\\\\"'])
      expect(parseJson(bytes(JSON.stringify({ [text]: text })), 'x')).toEqual(new Map([[text, text]]));
  });

  test('64 levels are read, 65 are not', () => {
    const nested = (levels: number) => bytes('['.repeat(levels) + ']'.repeat(levels));
    expect(parseJson(nested(65), 'x')).toHaveLength(1);
    expect(errorOf(() => parseJson(nested(66), 'x')).message).toContain('at most 64 levels at character 65');
    const objects = (levels: number) => bytes(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`);
    expect(parseJson(objects(64), 'x')).toBeInstanceOf(Map);
    expect(errorOf(() => parseJson(objects(65), 'x')).message).toContain('at most 64 levels');
  });

  test('49,152 members with 65,536 values each are read, one more is not', () => {
    const most = 2 ** 16;
    const list = (count: number, item: string) => `[${Array(count).fill(item).join(',')}]`;
    for (const item of ['0', '{}', '[]']) {
      expect(parseJson(bytes(list(most - 1, item)), 'x')).toHaveLength(most - 1);
      expect(errorOf(() => parseJson(bytes(list(most, item)), 'x')).message).toContain('at most 65536 values');
    }
    // Each member counts anew.
    const two = (count: number) => bytes(`{"a":${list(count, '0')},"b":{"c":${list(count - 1, '0')}}}`);
    expect(parseJson(two(most - 1), 'x')).toBeInstanceOf(Map);
    expect(errorOf(() => parseJson(two(most), 'x')).message).toContain('at most 65536 values');
    const members = (count: number) => bytes(`{${Array.from({ length: count }, (_, i) => `"${i}":0`).join(',')}}`);
    expect(parseJson(members(49152), 'x')).toHaveProperty('size', 49152);
    expect(errorOf(() => parseJson(members(49153), 'x')).message).toContain('at most 49152 members');
    // Inside, members are values.
    expect(errorOf(() => parseJson(bytes(`{"a":${Buffer.from(members(most))}}`), 'x')).message).toContain(
      '65536 values',
    );
  });

  test('members can be taken one by one', () => {
    const seen: [string, Json][] = [];
    const kept = parseJson(bytes('{"a":1,"b":{"a":[2]}}'), 'x', (key, value) => seen.push([key, value]));
    expect(seen).toEqual([
      ['a', 1],
      ['b', new Map([['a', [2]]])],
    ]);
    expect(kept).toEqual(
      new Map([
        ['a', null],
        ['b', null],
      ]),
    );
    expect(errorOf(() => parseJson(bytes('{"a":1,"a":2}'), 'x', () => undefined)).message).toContain('distinct keys');
  });

  test.each<[string, string, string]>([
    ['"abc', 'a closed string at character 0', 'got "\\"abc"'],
    ['"', 'a closed string at character 0', 'got "\\""'],
    ['{a:1}', 'a key at character 1', 'got "a:1}"'],
    ['{"a" 1}', '":" at character 5', 'got "1}"'],
    ['{"a":1 2}', '"," or "}" at character 7', 'got "2}"'],
    ['[1 2]', '"," or "]" at character 3', 'got "2]"'],
    ['[1,]', 'a JSON value at character 3', 'got "]"'],
    ['["\\x"]', 'a string at character 1', 'got'],
    ['[123456789012345678901234567890', '"," or "]" at character 31', 'got the end'],
    ['[x23456789012345', 'a JSON value at character 1', 'got "x23456789012"'],
    ['01', 'the end at character 1', 'got "1"'],
    ['\ufeff{}', 'a JSON value at character 0', 'got'],
  ])('%s', (text, expected, got) => {
    const { message } = errorOf(() => parseJson(bytes(text), 'x'));
    expect(message).toContain(`x: expected ${expected} of the header`);
    expect(message).toContain(got);
  });
});

describe('safetensors', () => {
  test('a header that ends with the file, and one byte more', () => {
    const header = Buffer.from('{"__metadata__":{"a":"b"}}');
    expect(readSafetensors(safetensors(header)).metadata).toEqual({ a: 'b' });
    const more = safetensors(header, undefined, BigInt(header.length + 1));
    expect(errorOf(() => readSafetensors(more)).message).toContain(
      `claims ${header.length + 1} bytes, got ${header.length}`,
    );
    expect(readSafetensors(safetensors('{}')).tensors.size).toBe(0);
    expect(errorOf(() => readSafetensors(new Uint8Array(7))).message).toContain('got 7 bytes');
    // Eight bytes are a length; what it says is the next thing to be wrong.
    expect(errorOf(() => readSafetensors(new Uint8Array(8))).message).toContain('expected a JSON value');
  });

  test('the cap itself is a length like any other', () => {
    const message = (length: bigint) => errorOf(() => readSafetensors(safetensors('{}', undefined, length))).message;
    expect(message(100_000_000n)).toContain('the header claims 100000000 bytes, got 2');
    expect(message(100_000_001n)).toContain('expected a header of at most 100000000 bytes');
    expect(message(2n ** 32n)).toContain('got 4294967296');
  });
});

describe('element types', () => {
  const sizes = {
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
  test.each(Object.entries(sizes))('%s has %d bytes', (dtype, size) => {
    const of = (bytes: number) =>
      readSafetensors(safetensors({ a: { dtype, shape: [3], data_offsets: [0, bytes] } }, new Uint8Array(bytes)));
    expect(of(3 * size).tensors.get('a')!.bytes).toHaveLength(3 * size);
    for (const wrong of [3 * size - 1, 3 * size + 1]) expect(errorOf(() => of(wrong)).code).toBe('ERR_HPFORMER_FILE');
  });
});

describe('zip', () => {
  const [a, b] = [bytes('first'), bytes('second member')];
  const read = (file: Uint8Array) =>
    Object.fromEntries([...readStoredZip(file, 'z')].map(([k, v]) => [k, Buffer.from(v).toString()]));

  test('zip64 sizes and places are those of the extra field, wherever in it they stand', () => {
    const wide = zip([
      ['a', a, { zip64: true }],
      ['b', b, { zip64: true }],
    ]);
    expect(read(wide)).toEqual({ a: 'first', b: 'second member' });
    // Another field before it: id 0x5455, four bytes.
    const at = wide.length - 22 - 2 * (46 + 1 + 28);
    const entry = Buffer.from(wide.subarray(at, at + 46));
    const extra = wide.subarray(at + 47, at + 75);
    entry.writeUInt16LE(36, 30);
    const other = Buffer.from([0x55, 0x54, 4, 0, 1, 1, 1, 1]);
    const end = Buffer.from(wide.subarray(wide.length - 22));
    const directory = Buffer.concat([entry, Buffer.from('a'), other, extra]);
    end.writeUInt16LE(1, 8);
    end.writeUInt16LE(1, 10);
    end.writeUInt32LE(directory.length, 12);
    const file = new Uint8Array(Buffer.concat([wide.subarray(0, at), directory, end]));
    expect(read(file)).toEqual({ a: 'first' });
    const broken = Uint8Array.from(file);
    broken[at + 47 + 8] = 2; // no field 1 any more
    expect(errorOf(() => read(broken)).message).toContain('a zip64 member lacks its 64-bit sizes');
    const short = Uint8Array.from(file);
    short[at + 47 + 10] = 23; // too short for three numbers
    expect(errorOf(() => read(short)).message).toContain('a zip64 member lacks its 64-bit sizes');
  });

  test('zip64 end records, and what they may disagree on', () => {
    const members: [string, Uint8Array][] = [['a', a]];
    expect(read(zip(members, { zip64: true }))).toEqual({ a: 'first' });
    const file = zip(members, { zip64: true });
    for (const [place, what] of [
      [10, 'count'],
      [12, 'size'],
      [16, 'offset'],
    ] as const) {
      const other = Buffer.from(file);
      const at = other.length - 22 + place;
      if (place === 10) other.writeUInt16LE(7, at);
      else other.writeUInt32LE(7, at);
      expect(errorOf(() => read(new Uint8Array(other))).message).toContain(`disagree on the directory's ${what}`);
    }
    // The same values in both records are no disagreement.
    const same = Buffer.from(file);
    same.writeUInt16LE(1, same.length - 12);
    expect(read(new Uint8Array(same))).toEqual({ a: 'first' });
    const lost = Buffer.from(file);
    lost.writeBigUInt64LE(BigInt(file.length - 22 - 20 - 55), lost.length - 22 - 20 + 8);
    expect(errorOf(() => read(new Uint8Array(lost))).message).toContain('not where its locator says');
    const far = Buffer.from(file);
    far.writeBigUInt64LE(2n ** 60n, far.length - 22 - 20 + 8);
    expect(errorOf(() => read(new Uint8Array(far))).message).toContain('not where its locator says');
  });

  test('a comment of any length up to the largest; none that is cut', () => {
    for (const comment of ['', 'x', 'y'.repeat(65535)])
      expect(read(zip([['a', a]], { comment }))).toEqual({ a: 'first' });
    const cut = zip([['a', a]], { comment: 'comment' }).subarray(0, -1);
    expect(errorOf(() => read(cut)).message).toContain('expected the end record of a zip file');
    expect(read(zip([]))).toEqual({});
    expect(errorOf(() => read(new Uint8Array(21))).message).toContain('got 21 bytes');
  });

  test('members that fill the file exactly; one byte more is refused', () => {
    expect(
      read(
        zip([
          ['a', a, { localExtra: Buffer.alloc(9) }],
          ['b', b],
        ]),
      ),
    ).toEqual({ a: 'first', b: 'second member' });
    const last = zip([['a', a]]);
    // The local header claims one byte of extra field more than there is.
    last[28] = 1;
    expect(errorOf(() => read(last)).message).toContain('claims 5 bytes at 32, the directory begins at 36');
    const second = zip([
      ['a', a],
      ['b', b, { header: 35 }],
    ]);
    expect(errorOf(() => read(second)).message).toMatch(/overlaps|local header/);
    const other = zip([['a', a, { localName: 'b' }]]);
    expect(errorOf(() => read(other)).message).toContain('its local header has another name');
    for (const [options, message] of [
      [{ flags: 1 }, 'encrypted'],
      [{ method: 8 }, 'compression method 8'],
      [{ crc: 1 }, 'checksum'],
      [{ packed: 4 }, 'equal sizes of a stored member, got 4 and 5'],
      [{ size: 6 }, 'claims 6 bytes'],
    ] as const)
      expect(errorOf(() => read(zip([['a', a, options]]))).message).toContain(message);
    expect(
      errorOf(() =>
        read(
          zip([
            ['a', a],
            ['a', a],
          ]),
        ),
      ).message,
    ).toContain('"a" twice');
    expect(errorOf(() => read(zip([['a', a]], { disk: 1 }))).message).toContain('several disks');
  });
});

describe('pickle', () => {
  const stored = (value: Buffer) =>
    torchZip(dict({ other: value, model: dict({ w: tensor({ count: 2, dims: [2], strides: [1] }) }) }), {
      0: floats(1, 2),
    });

  test.each<[string, Buffer]>([
    ['BINBYTES', Buffer.from([0x42, 3, 0, 0, 0, 1, 2, 3])],
    ['SHORT_BINBYTES', Buffer.from([0x43, 3, 1, 2, 3])],
    ['BINSTRING', Buffer.from([0x54, 3, 0, 0, 0, 0x61, 0x62, 0x63])],
    ['SHORT_BINSTRING', Buffer.from([0x55, 3, 0x61, 0x62, 0x63])],
    ['BINFLOAT', Buffer.from([0x47, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0])],
    ['BININT', Buffer.from([0x4a, 0xff, 0xff, 0xff, 0xff])],
    ['BININT2', Buffer.from([0x4d, 0, 1])],
    ['NONE', Buffer.from('N')],
    ['EMPTY_TUPLE', Buffer.from(')')],
    ['FRAME', Buffer.concat([Buffer.from([0x95, 1, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('N')])],
    ['POP', Buffer.from('NN0')],
    ['POP_MARK', Buffer.from('N(NN1')],
  ])('%s is read and what follows it, too', (_, value) => {
    const { tensors } = readTorch(stored(value), 'p');
    expect([...tensors.keys()]).toEqual(['w']);
  });

  test('a frame that reaches past the end, protocol 5', () => {
    const frame = Buffer.concat([Buffer.from([0x95, 0, 0, 0, 0, 1, 0, 0, 0]), Buffer.from('N')]);
    expect(errorOf(() => readTorch(stored(frame), 'p')).message).toContain('a frame reaches past the end');
    const five = zip([['top/data.pkl', Buffer.concat([Buffer.from([0x80, 5]), Buffer.from('N.')])]]);
    expect(errorOf(() => readTorch(five, 'p')).message).toContain('expected protocol 0 to 4, got 5');
  });
});

describe('weights', () => {
  const deviation = (data: ArrayLike<number>) =>
    Math.sqrt(Array.from(data, (x) => x * x).reduce((sum, x) => sum + x, 0) / data.length);
  const range = (data: ArrayLike<number>) => Math.max(...Array.from(data, Math.abs));

  test('the first values of every kind have the published spread', () => {
    const health = initialWeights(presets.mortality({ hidden: 64, layers: 2 }), 3);
    const widest = (name: string) => range(health.get(name)!.data as Float32Array);
    // Uniform in ±1/√fan_in: the largest of thousands is next to the bound.
    for (const [name, fan] of [
      ['embedding.weight', 76],
      ['tdhp.fusion.weight', 128],
      ['layers.0.output.weight', 64],
      ['layers.0.feedForward.weight', 64],
    ] as const) {
      expect(widest(name)).toBeLessThanOrEqual(1 / Math.sqrt(fan));
      expect(widest(name)).toBeGreaterThan(0.99 / Math.sqrt(fan));
    }
    for (const bias of ['embedding.bias', 'layers.0.output.bias', 'layers.0.feedForward.bias'])
      if (health.has(bias)) expect(widest(bias)).toBeGreaterThan(0);
    expect(health.get('layers.1.output.weight')!.data).toEqual(health.get('layers.0.output.weight')!.data);

    const text = presets.text({ hidden: 64, layers: 1, positions: { kind: 'learned', maximum: 200 } } as never);
    const tokens = initialWeights(text, 3);
    const positions = tokens.get('positions.weight')!.data as Float32Array;
    expect(deviation(tokens.get('embedding.weight')!.data as Float32Array)).toBeCloseTo(1 / 8, 2);
    expect(deviation(positions)).toBeCloseTo(1 / 8, 2);
    const padding = (text.embedding as { padding: number | null }).padding;
    expect(padding).not.toBeNull();
    // The row of the padding id alone is zero.
    const rows = Array.from({ length: positions.length / 64 }, (_, i) => positions.subarray(i * 64, i * 64 + 64));
    expect(rows.flatMap((row, i) => (row.every((x) => x === 0) ? [i] : []))).toEqual([padding]);

    const scalar = initialWeights(presets.image({ hidden: 256, heads: 8, layers: 1 } as never), 3);
    expect(Math.abs(deviation(scalar.get('embedding.weight')!.data as Float32Array) - 1)).toBeLessThan(0.15);
    expect(Math.abs(deviation(scalar.get('embedding.bias')!.data as Float32Array) - 0.1)).toBeLessThan(0.015);
  });

  test('mean pooling: heads of tokens and scalars are Xavier-uniform with zero bias, other heads are linear', () => {
    for (const pooling of ['mean', 'max'] as const) {
      const config = presets.listops({ hidden: 32, layers: 1, segments: { pooling } } as never);
      const weights = initialWeights(config, 1);
      const { dims, data } = weights.get('head.output.weight')!;
      const bound = pooling === 'mean' ? Math.sqrt(6 / (dims[0]! + dims[1]!)) : 1 / Math.sqrt(dims[1]!);
      expect(range(data as Float32Array)).toBeLessThanOrEqual(bound);
      expect(range(data as Float32Array)).toBeGreaterThan(0.97 * bound);
      const bias = weights.get('head.layers.0.bias')!.data as Float32Array;
      expect(range(bias) === 0).toBe(pooling === 'mean');
    }
  });

  test('lists in errors end after twelve names and six shapes', () => {
    const config = presets.mortality({ hidden: 8, layers: 1, embedding: { size: 3 } });
    const base = initialWeights(config, 1);
    const message = (change: (weights: typeof base) => void) => {
      const weights = new Map(base);
      change(weights);
      const entries = Object.fromEntries(
        [...weights].map(([name, { dims, data }], i, all) => {
          const from = all.slice(0, i).reduce((sum, [, w]) => sum + 4 * w.data.length, 0);
          return [name, { dtype: 'F32', shape: dims, data_offsets: [from, from + 4 * data.length] }];
        }),
      );
      const data = Buffer.concat(
        [...weights.values()].map(({ data: d }) => Buffer.from(d.buffer, d.byteOffset, d.byteLength)),
      );
      return errorOf(() => parseCheckpoint(safetensors(entries, data), config)).message;
    };
    for (const count of [12, 13]) {
      const said = message((weights) => {
        for (let i = 0; i < count; i++) weights.set(`stranger.${i}`, { dims: [1], data: new Float32Array(1) });
      });
      expect(said.includes('more')).toBe(count > 12);
    }
    expect(parseCheckpoint(serializeCheckpoint(config, base)).weights.size).toBe(base.size);
  });
});
