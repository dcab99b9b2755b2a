import { HPformerError, Tensor, type TensorType } from '../../../src';
import { readTensor, toInt32, toReal } from '../../../src/tensor/convert';
import { fromBfloat16, fromFloat16 } from '../../../src/tensor/half';
import { elementCount, describe as render } from '../../../src/tensor/shape';

const bare = (): number[] => [1];

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(HPformerError);
    return (error as HPformerError).code;
  }
  return 'no error';
}

describe('Tensor', () => {
  const arrays: [TensorType, unknown][] = [
    ['float64', new Float64Array(6)],
    ['float32', new Float32Array(6)],
    ['float16', new Uint16Array(6)],
    ['bfloat16', new Uint16Array(6)],
    ['int64', new BigInt64Array(6)],
    ['int32', new Int32Array(6)],
    ['uint8', new Uint8Array(6)],
    ['bool', new Uint8Array(6)],
  ];

  test.each(arrays)('%s holds its array and no other', (type, data) => {
    const tensor = new Tensor(type, data as never, [2, 3]);
    expect([tensor.type, tensor.size, tensor.dims, tensor.data]).toEqual([type, 6, [2, 3], data]);
    expect(codeOf(() => new Tensor(type, new Int8Array(6) as never, [6]))).toBe('ERR_HPFORMER_TYPE');
    expect(codeOf(() => new Tensor(type, Array.from({ length: 6 }) as never, [6]))).toBe('ERR_HPFORMER_TYPE');
  });

  test('dims belong to the tensor', () => {
    const dims = [2, 3];
    const tensor = new Tensor('float32', new Float32Array(6), dims);
    dims[0] = 5;
    expect(tensor.dims).toEqual([2, 3]);
    expect(() => (tensor.dims as number[]).push(1)).toThrow(TypeError);
  });

  test.each([
    [[2, 2], 'need 4 elements, got 6'],
    [[-1, -6], 'non-negative integer'],
    [[1.5, 4], 'non-negative integer'],
    [[2 ** 40, 2 ** 40], 'too large'],
    ['6', 'dims as an array'],
  ])('dims %p are refused', (dims, message) => {
    const make = () => new Tensor('float32', new Float32Array(6), dims as never);
    expect(make).toThrow(message);
    expect(codeOf(make)).toBe('ERR_HPFORMER_SHAPE');
  });

  test('an unknown type is named', () => {
    expect(() => new Tensor('string' as never, [] as never, [0])).toThrow('got type "string"');
  });
});

test('a detached buffer is seen', () => {
  const data = new Float32Array(4);
  const tensor = new Tensor('float32', data, [4]);
  structuredClone(data.buffer, { transfer: [data.buffer] });
  expect(() => readTensor('features', tensor, bare)).toThrow(
    'features: dims [4] need 4 elements, got 0 (is the buffer detached?)',
  );
});

test('tensors of other packages are taken by their structure', () => {
  class OrtTensor {
    get type() {
      return 'float32';
    }
    get data() {
      return new Float32Array([1, 2]);
    }
    get dims() {
      return [1, 2];
    }
  }
  expect(readTensor('features', new OrtTensor(), bare)).toMatchObject({ type: 'float32', dims: [1, 2] });
});

test('a getter that throws becomes one error with its cause', () => {
  const onDevice = {
    type: 'float32',
    dims: [1],
    get data(): never {
      throw new Error('The data is not on CPU.');
    },
  };
  expect(codeOf(() => readTensor('features', onDevice, bare))).toBe('ERR_HPFORMER_INPUT');
  expect(() => readTensor('features', onDevice, bare)).toThrow(
    'features: the tensor could not be read: The data is not on CPU.',
  );
});

test('bare arrays: their type is known, or they are refused', () => {
  expect(readTensor('x', new BigInt64Array(3), (n) => [1, n])).toMatchObject({ type: 'int64', dims: [1, 3] });
  expect(() => readTensor('x', new Uint16Array(1), bare)).toThrow('float16 or bfloat16 bits');
  expect(codeOf(() => readTensor('x', new DataView(new ArrayBuffer(4)), bare))).toBe('ERR_HPFORMER_TYPE');
  expect(codeOf(() => readTensor('x', 7, bare))).toBe('ERR_HPFORMER_TYPE');
  expect(codeOf(() => readTensor('x', null, bare))).toBe('ERR_HPFORMER_TYPE');
});

describe('conversion', () => {
  const read = (type: TensorType, data: unknown) =>
    readTensor('x', { type, data, dims: [(data as { length: number }).length] }, bare);

  test('float32 and float64 pass through where they fit, else they are converted', () => {
    const narrow = new Float32Array([0.1]);
    const wide = new Float64Array([0.1]);
    expect(toReal('x', read('float32', narrow), false)).toBe(narrow);
    expect(toReal('x', read('float64', wide), true)).toBe(wide);
    expect(toReal('x', read('float64', wide), false)).toEqual(narrow);
    expect(toReal('x', read('float32', narrow), true)).toEqual(new Float64Array([Math.fround(0.1)]));
  });

  test('every float16 bit pattern', () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 65536; bits++) {
      const sign = bits >> 15 ? -1 : 1;
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      const finite = sign * (fraction + (exponent ? 1024 : 0)) * 2 ** (Math.max(exponent, 1) - 25);
      const expected = exponent < 31 ? finite : fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
      if (!Object.is(fromFloat16(bits), expected)) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test('bfloat16 is the upper half of a float32', () => {
    expect(fromBfloat16(0x3f80)).toBe(1);
    expect(fromBfloat16(0xc049)).toBe(-3.140625);
    expect(fromBfloat16(0x7fc0)).toBeNaN();
    expect(toReal('x', read('bfloat16', new Uint16Array([0x3f80, 0x4000])), false)).toEqual(new Float32Array([1, 2]));
    expect(toReal('x', read('float16', new Uint16Array([0x3c00, 0xc000])), true)).toEqual(new Float64Array([1, -2]));
  });

  test('integers are real numbers only where that is asked for', () => {
    const mask = read('bool', new Uint8Array([0, 1]));
    expect(codeOf(() => toReal('x', mask, false))).toBe('ERR_HPFORMER_TYPE');
    expect(toReal('x', mask, false, true)).toEqual(new Float32Array([0, 1]));
    expect(toReal('x', read('int64', new BigInt64Array([-3n])), true, true)).toEqual(new Float64Array([-3]));
  });

  test('int64 is checked before it is narrowed', () => {
    expect(toInt32('x', read('int64', new BigInt64Array([2147483647n, -2147483648n])))).toEqual(
      new Int32Array([2147483647, -2147483648]),
    );
    for (const value of [2147483648n, -2147483649n, 2n ** 63n - 1n, 2n ** 32n]) {
      expect(codeOf(() => toInt32('x', read('int64', new BigInt64Array([0n, value]))))).toBe('ERR_HPFORMER_RANGE');
    }
    expect(() => toInt32('tokens', read('int64', new BigInt64Array([0n, 2n ** 40n])))).toThrow(
      `tokens: expected integers that fit 32 bits, got ${2n ** 40n} at element 1`,
    );
  });

  test('int32 passes through, uint8 widens, real numbers are no integers', () => {
    const ids = new Int32Array([1]);
    expect(toInt32('x', read('int32', ids))).toBe(ids);
    expect(toInt32('x', read('uint8', new Uint8Array([255])))).toEqual(new Int32Array([255]));
    for (const [type, data] of [
      ['float32', new Float32Array(1)],
      ['bool', new Uint8Array(1)],
      ['float16', new Uint16Array(1)],
    ] as const) {
      expect(codeOf(() => toInt32('x', read(type, data)))).toBe('ERR_HPFORMER_TYPE');
    }
  });
});

test('rendering and counting are safe for anything', () => {
  expect(render('x'.repeat(100))).toHaveLength(62);
  expect([render(null), render(undefined), render(5n), render([1, 'a']), render(new Map())]).toEqual([
    'null',
    'undefined',
    '5n',
    '[1, "a"]',
    'Map',
  ]);
  expect(elementCount('x', [])).toBe(1);
  expect(elementCount('x', [3, 0])).toBe(0);
});
