import fc from 'fast-check';
import { readSafetensors, type WrittenTensor, writeSafetensors } from '../../../src/checkpoint/safetensors';
import { type ElementType, elementBytes, widen } from '../../../src/checkpoint/tensors';
import { HPformerError } from '../../../src/errors';
import { fromBfloat16, fromFloat16 } from '../../../src/tensor/half';
import { seed } from '../../seed';
import { floats, safetensors } from './build';
import { bytesOf, cases, errorOf } from './support';

const one = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
const file = (over: object, data = floats(1, 2)) => safetensors({ a: { ...one, ...over } }, data);

describe('readSafetensors', () => {
  test.each(cases)('reads %s', (name) => {
    const { tensors, metadata } = readSafetensors(bytesOf(`${name}.safetensors`));
    expect(metadata.case).toBe(name);
    expect(tensors.size).toBeGreaterThan(5);
    for (const { type, dims, bytes } of tensors.values()) {
      expect(bytes.length).toBe(dims.reduce((a, b) => a * b, 1) * elementBytes[type]);
    }
  });

  test('gives views, scalars and empty tensors', () => {
    const bytes = safetensors(
      {
        a: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
        b: { dtype: 'I64', shape: [0, 3], data_offsets: [4, 4] },
      },
      floats(7),
    );
    const { tensors } = readSafetensors(bytes);
    expect(tensors.get('a')!.bytes.buffer).toBe(bytes.buffer);
    expect([...widen('a', tensors.get('a')!).data]).toEqual([7]);
    expect(tensors.get('b')!.bytes.length).toBe(0);
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['no bytes', new Uint8Array(0), /expected an 8-byte header length, got 0 bytes/],
    ['half a length', new Uint8Array(5), /got 5 bytes/],
    ['length 2^64-1', safetensors('{}', undefined, 2n ** 64n - 1n), /expected a header of at most 100000000 bytes/],
    ['length past the cap', safetensors('{}', undefined, 100_000_001n), /at most 100000000 bytes, got 100000001/],
    ['length past the end', safetensors('{}', undefined, 3n), /the header claims 3 bytes, got 2/],
    ['no header', safetensors(''), /expected a JSON value at character 0 of the header, got the end/],
    ['broken JSON', safetensors('{"a":'), /expected a JSON value at character 5/],
    ['a list', safetensors('[]'), /expected a JSON object/],
    ['more after the JSON', safetensors('{}{}'), /expected the end at character 2/],
    ['bad UTF-8', safetensors(Buffer.from([0x7b, 0xff, 0x7d])), /expected a header in UTF-8/],
    [
      'duplicate names',
      safetensors(`{"a":${JSON.stringify(one)},"a":${JSON.stringify(one)}}`, floats(1, 2)),
      /expected distinct keys at character 54 of the header/,
    ],
    [
      'duplicate fields',
      safetensors('{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', floats(1, 2)),
      /distinct keys/,
    ],
    ['deep nesting', safetensors(`${'['.repeat(1000)}${']'.repeat(1000)}`), /at most 64 levels/],
    ['metadata that is no object', safetensors({ __metadata__: 1 }), /__metadata__/],
    ['metadata that is no string', safetensors({ __metadata__: { a: 1 } }), /metadata "a" to be a string/],
    ['a tensor that is no object', safetensors({ a: [] }), /tensor "a": expected an object/],
    ['an unknown field', file({ more: 1 }), /tensor "a": unknown key "more"/],
    ['an unknown dtype', file({ dtype: 'F8' }), /expected dtype .* got "F8"/],
    ['a missing dtype', file({ dtype: undefined }), /expected dtype/],
    ['a dtype from the prototype', file({ dtype: 'toString' }), /expected dtype/],
    ['a shape that is no list', file({ shape: 2 }), /expected a shape/],
    ['a negative dim', file({ shape: [-2] }), /expected a shape/],
    ['a fractional dim', file({ shape: [2.5] }), /expected a shape/],
    ['a huge rank', file({ shape: Array(33).fill(1) }), /expected a shape/],
    ['dims whose product overflows', file({ shape: [2 ** 40, 2 ** 40] }), /too large/],
    ['dims whose bytes overflow', file({ shape: [2 ** 53 - 1] }), /needs \d+ bytes, got 8/],
    ['one offset', file({ data_offsets: [8] }), /expected data_offsets/],
    ['offsets in reverse', file({ data_offsets: [8, 0] }), /expected data_offsets/],
    ['a shape that does not fit', file({ shape: [3] }), /F32 \[3\] needs 12 bytes, got 8/],
    [
      'offsets past the end',
      file({ shape: [4], data_offsets: [0, 16] }),
      /expected 16 bytes of tensors after the header, got 8/,
    ],
    ['bytes after the tensors', file({}, floats(1, 2, 3)), /expected 8 bytes of tensors after the header, got 12/],
    [
      'bytes before the tensors',
      file({ data_offsets: [4, 12] }, floats(1, 2, 3)),
      /leaves a gap before it: expected it to begin at 0, got 4/,
    ],
    ['a gap', safetensors({ a: one, b: { ...one, data_offsets: [12, 20] } }, floats(1, 2, 3, 4, 5)), /leaves a gap/],
    [
      'an overlap',
      safetensors({ a: one, b: { ...one, data_offsets: [4, 12] } }, floats(1, 2, 3)),
      /tensor "b" overlaps/,
    ],
    ['two tensors on the same bytes', safetensors({ a: one, b: one }, floats(1, 2)), /overlaps/],
    [
      'an empty tensor past the end',
      safetensors({ a: one, b: { dtype: 'F32', shape: [0], data_offsets: [12, 12] } }, floats(1, 2)),
      /leaves a gap/,
    ],
  ])('refuses %s', (_, bytes, message) => {
    const error = errorOf(() => readSafetensors(bytes));
    expect(error.code).toBe('ERR_HPFORMER_FILE');
    expect(error.message).toMatch(message);
  });

  test('keeps odd names and metadata as they are', () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"__metadata__":{"__proto__":"x"},"\\u0061\\"\\\\":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}';
    const { tensors, metadata } = readSafetensors(safetensors(header, new Uint8Array(1)));
    expect([...tensors.keys()]).toEqual(['__proto__', 'a"\\']);
    expect(Object.entries(metadata)).toEqual([['__proto__', 'x']]);
  });

  test('reads a long string without a stack', () => {
    const text = '\\"x'.repeat(1 << 20);
    const { metadata } = readSafetensors(safetensors(`{"__metadata__":{"a":"${text}"}}`));
    expect(metadata.a!.length).toBe(2 << 20);
  });

  test('a small file cut at any byte is refused', () => {
    const whole = writeSafetensors(new Map([['a', { type: 'F32', dims: [2], bytes: floats(1, 2) }]]), { note: 'x' });
    for (let length = 0; length < whole.length; length++) {
      expect(errorOf(() => readSafetensors(whole.subarray(0, length))).code).toBe('ERR_HPFORMER_FILE');
    }
  });

  test(`any changed bytes give tensors or an error of ours (SEED=${seed})`, () => {
    const whole = bytesOf('lra_L1.safetensors');
    const header = 8 + Buffer.from(whole).readUInt32LE(0);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: header }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
        fc.option(fc.nat({ max: whole.length })),
        (changes, cut) => {
          const bytes = whole.slice(0, cut ?? whole.length);
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          try {
            for (const item of readSafetensors(bytes).tensors.values())
              expect(item.bytes.length).toBeLessThanOrEqual(bytes.length);
          } catch (error) {
            if (!(error instanceof HPformerError)) throw error;
          }
        },
      ),
      { seed, numRuns: 3000 },
    );
  });
});

describe('writeSafetensors', () => {
  const types = Object.keys(elementBytes) as ElementType[];

  test(`what it writes is read back, aligned, the same each time (SEED=${seed})`, () => {
    const tensors = fc.dictionary(
      fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__'),
      fc.record({
        type: fc.constantFrom(...types),
        dims: fc.array(fc.nat({ max: 4 }), { maxLength: 3 }),
        fill: fc.nat({ max: 255 }),
      }),
    );
    fc.assert(
      fc.property(tensors, fc.dictionary(fc.string(), fc.string()), (items, metadata) => {
        const written = new Map<string, WrittenTensor>();
        for (const [name, { type, dims, fill }] of Object.entries(items)) {
          const bytes = new Uint8Array(dims.reduce((a, b) => a * b, 1) * elementBytes[type]).fill(fill);
          written.set(name, { type, dims, bytes });
        }
        const file = writeSafetensors(written, metadata);
        expect(Buffer.compare(file, writeSafetensors(written, metadata))).toBe(0);
        const read = readSafetensors(file);
        expect({ ...read.metadata }).toEqual({ ...metadata });
        expect(new Set(read.tensors.keys())).toEqual(new Set(written.keys()));
        for (const [name, { type, dims, bytes }] of written) {
          const got = read.tensors.get(name)!;
          expect([got.type, got.dims]).toEqual([type, dims]);
          expect(Buffer.compare(got.bytes, bytes)).toBe(0);
          expect(got.bytes.length === 0 || got.bytes.byteOffset % elementBytes[type] === 0).toBe(true);
        }
      }),
      { seed, numRuns: 300 },
    );
  });

  test('refuses bytes that do not fit the dims', () => {
    expect(
      errorOf(() => writeSafetensors(new Map([['a', { type: 'F64', dims: [2], bytes: floats(1, 2) }]]))).code,
    ).toBe('ERR_HPFORMER_SHAPE');
  });
});

describe('widening', () => {
  test('float16 is exact for all 65536 bit patterns', () => {
    // The definition: sign · 2^(e−15) · 1.f, subnormals without the hidden bit.
    for (let bits = 0; bits < 65536; bits++) {
      const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
      const expected =
        exponent === 31
          ? fraction
            ? Number.NaN
            : sign / 0
          : sign * (exponent ? 1 + fraction / 1024 : fraction / 1024) * 2 ** (Math.max(exponent, 1) - 15);
      if (!Object.is(fromFloat16(bits), expected)) throw new Error(`${bits}: ${fromFloat16(bits)} for ${expected}`);
    }
    expect(fromFloat16(0x3555)).toBe(0.333251953125);
    expect(Object.is(fromFloat16(0x8000), -0)).toBe(true);
  });

  test('bfloat16 is the upper half of a float32', () => {
    for (const value of [0, -0, 1, -1.5, 3.0e38, 1e-40, Number.POSITIVE_INFINITY]) {
      const upper = new Uint16Array(new Float32Array([value]).buffer)[1]!;
      expect(fromBfloat16(upper)).toBe(new Float32Array(new Uint16Array([0, upper]).buffer)[0]);
    }
    expect(fromBfloat16(0x7fc0)).toBeNaN();
  });

  test('keeps float64, gives float32 for the rest, from any alignment', () => {
    const padded = new Uint8Array(17);
    padded.set(new Uint8Array(new Float64Array([Math.PI, -1e300]).buffer), 1);
    const wide = widen('x', { type: 'F64', dims: [2], bytes: padded.subarray(1) });
    expect(wide.data).toEqual(new Float64Array([Math.PI, -1e300]));
    expect(widen('x', { type: 'BF16', dims: [1], bytes: new Uint8Array([0x80, 0x3f]) }).data).toEqual(
      new Float32Array([1]),
    );
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    'refuses %p, naming tensor and element',
    (value) => {
      const error = errorOf(() =>
        widen('layers.0.output.weight', { type: 'F32', dims: [3], bytes: floats(1, value, 2) }),
      );
      expect(error).toEqual({
        code: 'ERR_HPFORMER_CHECKPOINT',
        message: `layers.0.output.weight: expected finite values, got ${value} at element 1`,
      });
    },
  );

  test('refuses integers as weights', () => {
    expect(errorOf(() => widen('a', { type: 'I64', dims: [1], bytes: new Uint8Array(8) })).message).toMatch(
      /expected floating-point elements .* got I64/,
    );
  });
});
