import fc from 'fast-check';
import { widen } from '../../../src/checkpoint/tensors';
import { allowedGlobals } from '../../../src/checkpoint/torch/globals';
import { readTorch, torchFormOf } from '../../../src/checkpoint/torch/read';
import { unpickle } from '../../../src/checkpoint/torch/unpickle';
import { readStoredZip } from '../../../src/checkpoint/torch/zip';
import { HPformerError } from '../../../src/errors';
import { seed } from '../../seed';
import { dict, floats, type MemberOptions, op, pickle, tensor, torchLegacy, torchZip, zip } from './build';
import { bytesOf, errorOf, fixture, valuesOf } from './support';

const forms: [file: string, fixtureName: string][] = [
  ['ckpt_health_ihmp.zip.pt', 'ckpt_health_ihmp'],
  ['ckpt_health_ihmp.legacy.pt', 'ckpt_health_ihmp'],
  ['ckpt_lra_text.zip.pt', 'ckpt_lra_text'],
  ['ckpt_lra_text.fairseq_fp16.pt', 'ckpt_lra_text'],
];

describe.each(forms)('%s', (file, name) => {
  test("has the fixture's tensors, bit for bit", () => {
    const { tensors } = readTorch(bytesOf(file));
    const { state } = fixture(name);
    expect(new Set(tensors.keys())).toEqual(new Set(state.keys()));
    let floating = 0;
    for (const [key, expected] of state) {
      const got = tensors.get(key)!;
      expect(got.dims).toEqual(expected.dims);
      if (expected.type === 'I64') {
        expect([...got.bytes.subarray(0, 8)]).toEqual([...expected.bytes]);
      } else if (!key.endsWith('_float_tensor')) {
        expect([...widen(key, got).data]).toEqual(valuesOf(expected));
        floating++;
      }
    }
    expect(floating).toBeGreaterThan(15);
  });

  test('cut at any byte is refused', () => {
    const whole = bytesOf(file);
    // Every byte of the structured parts, every 97th of the raw data between.
    for (let length = 0; length < whole.length; length += length < 4096 || length > whole.length - 4096 ? 1 : 97) {
      const { code } = errorOf(() => {
        if (!torchFormOf(whole.subarray(0, length))) throw new HPformerError('ERR_HPFORMER_FILE', 'no form');
        readTorch(whole.subarray(0, length));
      });
      expect(code).toBe('ERR_HPFORMER_FILE');
    }
  });

  test(`changed bytes give tensors or an error of ours (SEED=${seed})`, () => {
    const whole = bytesOf(file);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: whole.length - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 }),
        (changes) => {
          const bytes = whole.slice();
          for (const [at, value] of changes) bytes[at] = value;
          try {
            if (torchFormOf(bytes)) readTorch(bytes);
          } catch (error) {
            if (!(error instanceof HPformerError)) throw error;
          }
        },
      ),
      { seed, numRuns: 800 },
    );
  });
});

test('fairseq arguments come with the tensors', () => {
  expect(readTorch(bytesOf('ckpt_lra_text.fairseq_fp16.pt')).args!.get('encoder_layers')).toBe(2);
  expect(readTorch(bytesOf('ckpt_lra_text.zip.pt')).args).toBeUndefined();
});

const read = (item: Buffer, storages: Record<string, Uint8Array>) => {
  const { tensors } = readTorch(torchZip(dict({ w: item }), storages));
  return [...widen('w', tensors.get('w')!).data];
};

describe('tensors over storages', () => {
  const six = floats(1, 2, 3, 4, 5, 6);

  test('honours offsets, transposed and overlapping strides', () => {
    expect(read(tensor({ count: 6, dims: [2, 3], strides: [3, 1] }), { 0: six })).toEqual([1, 2, 3, 4, 5, 6]);
    expect(read(tensor({ count: 6, dims: [3, 2], strides: [1, 3] }), { 0: six })).toEqual([1, 4, 2, 5, 3, 6]);
    expect(read(tensor({ count: 6, dims: [2], strides: [2], offset: 3 }), { 0: six })).toEqual([4, 6]);
    expect(read(tensor({ count: 6, dims: [2, 2], strides: [1, 1], offset: 3 }), { 0: six })).toEqual([4, 5, 5, 6]);
    expect(read(tensor({ count: 6, dims: [], strides: [], offset: 5 }), { 0: six })).toEqual([6]);
    expect(read(tensor({ count: 6, dims: [2, 0], strides: [1, 1] }), { 0: six })).toEqual([]);
  });

  test('several tensors share a storage; parameters are their tensors', () => {
    const root = dict({
      a: tensor({ count: 6, dims: [2], strides: [1] }),
      b: tensor({ count: 6, dims: [2], strides: [1], offset: 4, parameter: true }),
    });
    const { tensors } = readTorch(torchZip(root, { 0: six }));
    expect([...tensors].map(([key, item]) => [key, ...widen(key, item).data])).toEqual([
      ['a', 1, 2],
      ['b', 5, 6],
    ]);
  });

  test.each<[string, Uint8Array, number[]]>([
    ['DoubleStorage', new Uint8Array(new Float64Array([0.1, 2]).buffer), [0.1, 2]],
    ['HalfStorage', new Uint8Array(new Uint16Array([0x3c00, 0xc000]).buffer), [1, -2]],
    ['BFloat16Storage', new Uint8Array(new Uint16Array([0x3f80, 0xc000]).buffer), [1, -2]],
  ])('reads %s', (storage, data, values) => {
    expect(read(tensor({ storage, count: 2, dims: [2], strides: [1] }), { 0: data })).toEqual(values);
  });

  test('honours the views of legacy files', () => {
    const view = Buffer.concat([op.mark, op.text('1'), op.integer(2), op.integer(3), op.tuple]);
    const root = dict({
      w: tensor({ count: 6, dims: [2], strides: [1], offset: 1, view }),
      v: tensor({ count: 6, dims: [1], strides: [1], view: op.none }),
    });
    const { tensors } = readTorch(torchLegacy(root, [['0', 6, six]]));
    expect([...widen('w', tensors.get('w')!).data]).toEqual([4, 5]);
  });

  test.each<[string, Partial<Parameters<typeof tensor>[0]>, RegExp]>([
    ['too many elements', { dims: [7] }, /tensor \[7\] at element 0 .* does not lie in its storage of 6/],
    ['an offset past the end', { offset: 5, dims: [2] }, /does not lie/],
    ['a stride past the end', { dims: [2, 3], strides: [4, 1] }, /does not lie/],
    ['an expanded bomb', { dims: [2 ** 31, 2 ** 20], strides: [0, 0] }, /does not lie/],
    ['dims that overflow', { dims: Array(32).fill(2 ** 50), strides: Array(32).fill(0) }, /does not lie/],
    [
      'dims that overflow and a zero',
      { dims: [...Array(31).fill(2 ** 50), 0], strides: Array(32).fill(0) },
      /does not lie/,
    ],
    ['negative dims', { dims: [-1] }, /size of a tensor/],
    ['negative strides', { dims: [2], strides: [-1] }, /strides of a tensor/],
    ['a negative offset', { offset: -1 }, /offset/],
    ['fewer strides than dims', { dims: [1, 1], strides: [1] }, /expected 2 strides, got 1/],
    ['another rank', { dims: Array(33).fill(1), strides: Array(33).fill(1) }, /size of a tensor/],
    ['a count that the file has not', { count: 7 }, /7 F32 elements need 28 bytes, got 24/],
    ['a huge count', { count: 2 ** 52 }, /need \d+ bytes, got 24/],
    ['a negative count', { count: -6 }, /key and size of a storage/],
    ['a missing storage', { key: 'x' }, /storage "x" is missing/],
    ['a storage of another folder', { key: '../data.pkl' }, /is missing/],
    ['another storage class', { storage: 'UntypedStorage' }, /"torch\.UntypedStorage" is not allowed/],
  ])('refuses %s', (_, over, message) => {
    const error = errorOf(() => read(tensor({ count: 6, dims: [2], strides: [1], ...over }), { 0: six }));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });
});

describe('what a file may hold', () => {
  const weight = tensor({ count: 1, dims: [1], strides: [1] });
  const data = { 0: floats(1) };

  test.each(['model', 'state_dict', 'model_state_dict'])('a state dict under %s', (key) => {
    expect([
      ...readTorch(torchZip(dict({ epoch: op.integer(3), [key]: dict({ w: weight }) }), data)).tensors.keys(),
    ]).toEqual(['w']);
  });

  test.each<[string, Buffer, RegExp]>([
    ['a number', op.integer(3), /expected a state dict, got 3/],
    ['a tensor', weight, /expected a state dict, got a tensor \[1\]/],
    ['an empty dict', op.dict, /expected a state dict, got an empty dict/],
    ['a dict of other things', dict({ w: weight, lr: op.integer(1) }), /expected names and tensors, got "lr": 1/],
    ['numbers as names', Buffer.concat([op.dict, op.integer(0), weight, op.setItem]), /got 0: a tensor/],
    [
      'a list that holds itself',
      dict({ w: Buffer.concat([op.list, op.put(0), op.get(0), op.append]) }),
      /got "w": a list of 1/,
    ],
  ])('not %s', (_, root, message) => {
    const error = errorOf(() => readTorch(torchZip(root, data)));
    expect(error.code).toBe('ERR_HPFORMER_CHECKPOINT');
    expect(error.message).toMatch(message);
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['no data.pkl', zip([['top/version', floats(1)]]), /expected one data.pkl in a top folder, got 0/],
    [
      'two of them',
      zip([
        ['a/data.pkl', pickle(op.none)],
        ['b/data.pkl', pickle(op.none)],
      ]),
      /got 2/,
    ],
    ['one at another depth', zip([['a/b/data.pkl', pickle(op.none)]]), /got 0/],
    ['big-endian data', torchZip(dict({ w: weight }), data, { byteorder: Buffer.from('big') }), /little-endian/],
    [
      'more after the pickle',
      zip([['a/data.pkl', new Uint8Array([...pickle(op.none), 0])]]),
      /expected its end at byte 4, got 5/,
    ],
  ])('refuses a zip with %s', (_, bytes, message) => {
    expect(errorOf(() => readTorch(bytes)).message).toMatch(message);
  });

  test.each<[string, Uint8Array, RegExp]>([
    [
      'another protocol',
      torchLegacy(dict({ w: weight }), [['0', 1, floats(1)]], { protocol: 1002 }),
      /expected legacy protocol 1001, got 1002/,
    ],
    ['big-endian data', torchLegacy(dict({ w: weight }), [['0', 1, floats(1)]], { little: false }), /little-endian/],
    ['a wrong count', torchLegacy(dict({ w: weight }), [['0', 2, floats(1, 2)]]), /expected 1 elements, got 2/],
    [
      'a huge count',
      torchLegacy(dict({ w: weight }), [['0', 2 ** 52, floats(1)]]),
      /expected 1 elements, got 4503599627370496/,
    ],
    ['too little data', torchLegacy(dict({ w: weight }), [['0', 1, new Uint8Array(3)]]), /\(3 bytes left\)/],
    [
      'data after the storages',
      torchLegacy(dict({ w: weight }), [['0', 1, floats(1, 2)]]),
      /expected the end of the file/,
    ],
    [
      'a storage of nobody',
      torchLegacy(dict({ w: weight }), [
        ['0', 1, floats(1)],
        ['1', 1, floats(1)],
      ]),
      /storage "1" belongs to no tensor/,
    ],
    [
      'a storage twice',
      torchLegacy(dict({ w: weight }), [
        ['0', 1, floats(1)],
        ['0', 1, floats(1)],
      ]),
      /listed twice/,
    ],
    ['no storage', torchLegacy(dict({ w: weight }), []), /storage "0" is missing/],
  ])('refuses a legacy file with %s', (_, bytes, message) => {
    const error = errorOf(() => readTorch(bytes));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });
});

describe('unpickle', () => {
  const run = (...body: Buffer[]) => unpickle(pickle(...body), 0, 'x').value;

  test('reads plain values', () => {
    expect(run(op.integer(-5))).toBe(-5);
    expect(run(Buffer.from([0x8a, 0]))).toBe(0);
    expect(run(Buffer.from([0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]))).toBe(2n ** 64n);
    expect(run(Buffer.from([0x4a, 0xfe, 0xff, 0xff, 0xff]))).toBe(-2);
    expect(run(Buffer.from([0x4d, 1, 2]))).toBe(513);
    expect(run(Buffer.from('473ff8000000000000', 'hex'))).toBe(1.5);
    expect(run(Buffer.from([0x8c, 2, 0xc3, 0xa9]))).toBe('é');
    expect(run(Buffer.from([0x55, 1, 0xe9]))).toBe('é');
    expect(run(op.integer(1), op.integer(2), op.integer(3), Buffer.from([0x87]))).toEqual([1, 2, 3]);
    expect(run(op.list, op.mark, op.integer(1), op.integer(2), Buffer.from('e'))).toEqual([1, 2]);
    expect(run(op.text('a'), Buffer.from([0x94]), Buffer.from('0'), op.get(0))).toBe('a');
    expect(run(op.mark, op.text('a'), op.integer(1), Buffer.from('d'))).toEqual(new Map([['a', 1]]));
    expect(
      run(op.text('argparse'), op.text('Namespace'), Buffer.from([0x93]), op.emptyTuple, op.newObject),
    ).toMatchObject({ className: 'argparse.Namespace' });
  });

  test('the list of globals is closed', () => {
    expect(
      [...allowedGlobals.keys()].filter((name) => !/^(torch|collections|numpy|argparse|_codecs)\./.test(name)),
    ).toEqual([]);
    for (const name of [
      'builtins.eval',
      'os.system',
      'posix.system',
      'subprocess.Popen',
      'torch.load',
      'builtins.getattr',
      'torch.nn.modules.linear.Linear',
      '__builtin__.dict',
    ]) {
      const error = errorOf(() => run(op.global(name), op.mark, op.text('id'), op.tuple, op.reduce));
      expect(error.code).toBe('ERR_HPFORMER_FILE');
      expect(error.message).toContain(`"${name}" is not allowed`);
    }
  });

  test('every opcode outside the list is refused', () => {
    // i INST, o OBJ, P PERSID, I INT, S STRING, V UNICODE, L LONG, F FLOAT, g GET, p PUT, 2 DUP, EXT1-4, NEWOBJ_EX, protocol 5.
    for (const opcode of [
      ...Buffer.from('ioPISVLFgp2'),
      0x82,
      0x83,
      0x84,
      0x8e,
      0x8f,
      0x90,
      0x91,
      0x92,
      0x96,
      0x97,
      0x98,
      0,
      255,
    ]) {
      const error = errorOf(() => run(op.mark, op.integer(1), Buffer.from([opcode, 0x30, 0x0a, 0, 0, 0, 0, 0, 0, 0])));
      expect(error.code).toBe('ERR_HPFORMER_FILE');
      expect(error.message).toMatch(/opcode 0x[0-9a-f]{2} at byte \d+ is not allowed/);
    }
  });

  test.each<[string, Buffer[], RegExp]>([
    ['an empty stack', [], /expected a value on the stack/],
    ['more than one value', [op.none, op.none], /got more on the stack/],
    ['an open mark', [op.none, op.mark], /expected a value on the stack/],
    ['no mark', [op.tuple], /expected a mark/],
    ['a pop through a mark', [op.none, op.mark, Buffer.from('0')], /expected a value on the stack/],
    ['a missing memo entry', [op.get(3)], /memo entry 3/],
    ['a key without a value', [op.dict, op.mark, op.none, op.setItems], /in pairs/],
    ['items of a list', [op.list, op.mark, op.none, op.none, op.setItems], /expected a dict to fill, got a list of 0/],
    ['an append to a dict', [op.dict, op.none, op.append], /expected a list to append to, got a dict of 0/],
    [
      'a call of a string',
      [op.text('os.system'), op.emptyTuple, op.reduce],
      /expected an allowed class or function, got "os.system"/,
    ],
    ['a call of a storage', [op.global('torch.FloatStorage'), op.emptyTuple, op.reduce], /kept beside the pickle/],
    ['arguments that are no tuple', [op.global('torch.Size'), op.none, op.reduce], /expected a tuple of arguments/],
    ['a state of a number', [op.integer(1), op.dict, op.build], /expected an object with a state, got 1/],
    ['a storage that is none', [op.text('storage'), op.persistent], /expected a storage/],
    [
      'a parameter of nothing',
      [op.global('torch._utils._rebuild_parameter'), op.emptyTuple, op.reduce],
      /parameter's tensor/,
    ],
    [
      'a tensor of nothing',
      [op.global('torch._utils._rebuild_tensor_v2'), op.emptyTuple, op.reduce],
      /tensor's storage/,
    ],
    [
      'pairs that are none',
      [op.global('collections.OrderedDict'), op.list, op.none, op.append, Buffer.from([0x85]), op.reduce],
      /expected pairs/,
    ],
    ['a string past the end', [Buffer.from([0x58, 255, 255, 255, 0])], /expected 16777215 more bytes|at most/],
    ['a huge string', [Buffer.from([0x8d, 0, 0, 0, 0, 0, 0, 0, 0xff])], /at most 16777216 bytes/],
    ['a huge integer', [Buffer.from([0x8b, 0, 0, 0, 1])], /at most 64 bytes/],
    ['a long name of a global', [Buffer.from(`c${'a'.repeat(300)}\nb\n`)], /line of at most 255/],
    ['a frame past the end', [Buffer.from([0x95, 9, 0, 0, 0, 0, 0, 0, 0])], /frame/],
    ['another protocol', [Buffer.from([0x80, 5])], /expected protocol 0 to 4, got 5/],
  ])('refuses %s', (_, body, message) => {
    const error = errorOf(() => run(...body));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });

  test('bounds stack, marks and memo', () => {
    expect(errorOf(() => run(Buffer.alloc(200_000, 'N'))).message).toMatch(/at most 100000 values on the stack/);
    expect(errorOf(() => run(Buffer.alloc(200_000, '('))).message).toMatch(/at most 100000 marks/);
    const puts = Buffer.alloc(1 + 5 * 1_000_001);
    puts[0] = 0x4e;
    for (let i = 0; i <= 1_000_000; i++) {
      puts[1 + 5 * i] = 0x72;
      puts.writeUInt32LE(i, 2 + 5 * i);
    }
    expect(errorOf(() => run(puts)).message).toMatch(/at most 1000000 memo entries/);
  });

  test('nests deeply without a stack of its own', () => {
    const nested = Buffer.concat([op.none, Buffer.alloc(90_000, 0x85)]);
    expect(run(nested)).toHaveLength(1);
    expect(errorOf(() => readTorch(torchLegacy(dict({ w: nested }), []))).code).toBe('ERR_HPFORMER_CHECKPOINT');
  });

  test(`any bytes are a value or an error of ours (SEED=${seed})`, () => {
    const opcode = fc.constantFrom(
      ...Buffer.from('(.0123tlde})]usabRQNqhjrcXUTGJKM'),
      0x81,
      0x85,
      0x86,
      0x87,
      0x88,
      0x89,
      0x8a,
      0x8c,
      0x93,
      0x94,
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 3, arbitrary: opcode }, { weight: 1, arbitrary: fc.nat({ max: 255 }) }), {
          maxLength: 60,
        }),
        (bytes) => {
          try {
            unpickle(new Uint8Array(bytes), 0, 'x');
          } catch (error) {
            if (!(error instanceof HPformerError)) throw error;
          }
        },
      ),
      { seed, numRuns: 10_000 },
    );
  });
});

describe('readStoredZip', () => {
  const data = floats(1, 2, 3);
  const one = (options: MemberOptions, end = {}) => zip([['a', data, options]], end);

  test('reads members, local extras, comments and zip64 records', () => {
    for (const bytes of [
      one({}),
      one({ localExtra: Buffer.alloc(50) }),
      one({}, { comment: 'PK\u0005\u0006 in a comment' }),
      one({ zip64: true }),
      one({}, { zip64: true }),
      one({ zip64: true }, { zip64: true }),
    ]) {
      expect([...readStoredZip(bytes, 'x').get('a')!]).toEqual([...data]);
    }
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['too few bytes', new Uint8Array(21), /expected a zip file, got 21 bytes/],
    ['no end record', new Uint8Array(100), /found none/],
    ['bytes after the end record', new Uint8Array([...one({}), 0]), /found none/],
    ['several disks', one({}, { disk: 1 }), /several disks/],
    ['a compressed member', one({ method: 8 }), /expected a stored member, got compression method 8/],
    ['an encrypted member', one({ flags: 1 }), /encrypted/],
    ['a wrong checksum', one({ crc: 1 }), /checksum/],
    ['two sizes', one({ packed: 4 }), /expected equal sizes/],
    ['a size past the directory', one({ size: 100 }), /claims 100 bytes at 0/],
    ['a size into the directory', one({ size: 13 }), /claims 13 bytes at 31/],
    ['a zip64 size of 2^63', one({ size: 2 ** 62, zip64: true }), /claims 4611686018427388000 bytes/],
    ['a header past the end', one({ header: 5000 }), /claims/],
    ['a header somewhere else', one({ header: 1 }), /expected a local header at byte 1/],
    ['another local name', one({ localName: 'b' }), /its local header has another name/],
    ['a count above', one({}, { count: 2 }), /do not fit|expected directory entry 1/],
    [
      'a count below',
      zip(
        [
          ['a', data],
          ['b', data],
        ],
        { count: 1 },
      ),
      /expected 1 directory entries to fill/,
    ],
    ['a huge zip64 count', one({}, { count: 2 ** 40, zip64: true }), /members do not fit/],
    ['a directory elsewhere', one({}, { offset: 0 }), /the central directory claims/],
    ['a zip64 directory elsewhere', one({}, { offset64: 2 ** 60, zip64: true }), /the central directory claims/],
    ['a directory too large', one({}, { size: 5000 }), /the central directory claims/],
    [
      'the same name twice',
      zip([
        ['a', data],
        ['a', data],
      ]),
      /expected distinct members, got "a" twice/,
    ],
    [
      'overlapping members',
      zip([
        ['a', data],
        ['a', data, { header: 0 }],
      ]),
      /overlaps|another name/,
    ],
  ])('refuses %s', (_, bytes, message) => {
    const error = errorOf(() => readStoredZip(bytes, 'x'));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });
});
