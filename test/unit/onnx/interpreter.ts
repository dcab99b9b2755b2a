/**
 * Decodes an ONNX file and runs it in double precision, one plain loop per operator: an independent reader of what
 * src/checkpoint/onnx writes. Only the operators that it writes are known; anything else throws.
 */

export interface Value {
  dims: number[];
  data: Float64Array;
}

type Field = { field: number; wire: number; value: bigint; bytes: Uint8Array };

/** The fields of one protocol buffer message. */
export function fields(bytes: Uint8Array): Field[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error('varint beyond the end');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const item: Field = { field: key >> 3, wire: key & 7, value: 0n, bytes: new Uint8Array(0) };
    if (item.wire === 0) item.value = varint();
    else if (item.wire === 5) {
      item.bytes = bytes.subarray(at, (at += 4));
      item.value = BigInt(view.getUint32(at - 4, true));
    } else if (item.wire === 2) {
      const length = Number(varint());
      if (at + length > bytes.length) throw new Error('field beyond the end');
      item.bytes = bytes.subarray(at, (at += length));
    } else throw new Error(`wire type ${item.wire}`);
    out.push(item);
  }
  return out;
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const all = (list: Field[], field: number) => list.filter((item) => item.field === field);
const one = (list: Field[], field: number) => list.find((item) => item.field === field);
const float = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, 4).getFloat32(0, true);

interface Node {
  type: string;
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Map<string, number | number[]>;
}

export interface Model {
  opsets: Map<string, number>;
  metadata: Map<string, string>;
  nodes: Node[];
  constants: Map<string, Value>;
  inputs: string[];
  outputs: string[];
}

function constant(bytes: Uint8Array): [string, Value] {
  const list = fields(bytes);
  const dims = all(list, 1).map(({ value }) => Number(value));
  const raw = one(list, 9)!.bytes.slice();
  const readers: Record<number, () => ArrayLike<number>> = {
    1: () => new Float32Array(raw.buffer),
    3: () => new Int8Array(raw.buffer),
    6: () => new Int32Array(raw.buffer),
    7: () => Array.from(new BigInt64Array(raw.buffer), Number),
    11: () => new Float64Array(raw.buffer),
  };
  const data = Float64Array.from(readers[Number(one(list, 2)!.value)]!());
  if (data.length !== size(dims)) throw new Error(`constant of ${data.length} values for [${dims}]`);
  return [text(one(list, 8)!.bytes), { dims, data }];
}

/** Reads an ONNX file. */
export function decode(bytes: Uint8Array): Model {
  const model = fields(bytes);
  const graph = fields(one(model, 7)!.bytes);
  const named = (field: number) => all(graph, field).map((item) => text(one(fields(item.bytes), 1)!.bytes));
  return {
    opsets: new Map(
      all(model, 8).map(({ bytes: b }) => [text(one(fields(b), 1)!.bytes), Number(one(fields(b), 2)!.value)]),
    ),
    metadata: new Map(
      all(model, 14).map(({ bytes: b }) => [text(one(fields(b), 1)!.bytes), text(one(fields(b), 2)!.bytes)]),
    ),
    nodes: all(graph, 1).map((item) => {
      const list = fields(item.bytes);
      const attributes = new Map<string, number | number[]>();
      for (const { bytes: b } of all(list, 5)) {
        const parts = fields(b);
        const type = Number(one(parts, 20)!.value);
        const value =
          type === 1
            ? float(one(parts, 2)!.bytes)
            : type === 2
              ? Number(one(parts, 3)!.value)
              : all(parts, 8).map((part) => Number(part.value));
        attributes.set(text(one(parts, 1)!.bytes), value);
      }
      const domain = one(list, 7);
      return {
        type: text(one(list, 4)!.bytes),
        domain: domain ? text(domain.bytes) : '',
        inputs: all(list, 1).map(({ bytes: b }) => text(b)),
        outputs: all(list, 2).map(({ bytes: b }) => text(b)),
        attributes,
      };
    }),
    constants: new Map(all(graph, 5).map((item) => constant(item.bytes))),
    inputs: named(11),
    outputs: named(12),
  };
}

const size = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);
const make = (dims: number[], at: (index: number) => number): Value => ({
  dims,
  data: Float64Array.from({ length: size(dims) }, (_, i) => at(i)),
});

/** Offset in a broadcast operand of element `index` of `dims`. */
function offset(index: number, dims: number[], operand: number[]): number {
  let rest = index;
  let at = 0;
  let stride = 1;
  for (let axis = dims.length - 1, o = operand.length - 1; o >= 0; axis--, o--) {
    const coordinate = rest % dims[axis]!;
    rest = Math.floor(rest / dims[axis]!);
    if (operand[o] !== 1) at += coordinate * stride;
    stride *= operand[o]!;
  }
  return at;
}

function broadcast(a: Value, b: Value, f: (x: number, y: number) => number): Value {
  const rank = Math.max(a.dims.length, b.dims.length);
  const pad = (dims: number[]) => [...Array<number>(rank - dims.length).fill(1), ...dims];
  const left = pad(a.dims);
  const right = pad(b.dims);
  const dims = left.map((n, i) => {
    const m = right[i]!;
    if (n !== m && n !== 1 && m !== 1) throw new Error(`cannot broadcast [${a.dims}] with [${b.dims}]`);
    return n === 1 ? m : n;
  });
  return make(dims, (i) => f(a.data[offset(i, dims, a.dims)]!, b.data[offset(i, dims, b.dims)]!));
}

function matmul(a: Value, b: Value, alpha = 1, transB = false): Value {
  const right = transB ? transpose(b, [...b.dims.keys()].slice(0, -2).concat(b.dims.length - 1, b.dims.length - 2)) : b;
  const [m, k] = a.dims.slice(-2) as [number, number];
  const n = right.dims.at(-1)!;
  if (right.dims.at(-2) !== k) throw new Error(`cannot multiply [${a.dims}] by [${right.dims}]`);
  const batch = a.dims.slice(0, -2);
  const shared = right.dims.length === 2;
  const dims = [...batch, m, n];
  const out = { dims, data: new Float64Array(size(dims)) };
  for (let s = 0; s < size(batch); s++) {
    const base = shared ? 0 : s * k * n;
    for (let i = 0; i < m; i++)
      for (let x = 0; x < k; x++) {
        const value = alpha * a.data[(s * m + i) * k + x]!;
        for (let j = 0; j < n; j++) out.data[(s * m + i) * n + j]! += value * right.data[base + x * n + j]!;
      }
  }
  return out;
}

function transpose(x: Value, perm: number[]): Value {
  const strides = x.dims.map((_, i) => size(x.dims.slice(i + 1)));
  const dims = perm.map((axis) => x.dims[axis]!);
  return make(dims, (index) => {
    let rest = index;
    let at = 0;
    for (let i = dims.length - 1; i >= 0; i--) {
      at += (rest % dims[i]!) * strides[perm[i]!]!;
      rest = Math.floor(rest / dims[i]!);
    }
    return x.data[at]!;
  });
}

/** Length of an axis, and of what lies inside it. */
function around(x: Value, axis: number): [length: number, inner: number] {
  const at = axis < 0 ? axis + x.dims.length : axis;
  return [x.dims[at]!, size(x.dims.slice(at + 1))];
}

function alongLast(x: Value, f: (row: Float64Array) => ArrayLike<number>): Value {
  const width = x.dims.at(-1)!;
  const data = new Float64Array(x.data.length);
  for (let at = 0; at < data.length; at += width) data.set(Array.from(f(x.data.subarray(at, at + width))), at);
  return { dims: x.dims, data };
}

function reduce(x: Value, axis: number, keep: boolean, f: (values: number[]) => number): Value {
  const [length, inner] = around(x, axis);
  const at = axis < 0 ? axis + x.dims.length : axis;
  const dims = x.dims.flatMap((n, i) => (i === at ? (keep ? [1] : []) : [n]));
  const value = (o: number, l: number, i: number) => x.data[(o * length + l) * inner + i]!;
  return make(dims, (n) => f(Array.from({ length }, (_, l) => value(Math.floor(n / inner), l, n % inner))));
}

function gather(x: Value, index: Value, axis: number): Value {
  const [length, inner] = around(x, axis);
  const dims = [...x.dims.slice(0, axis), ...index.dims, ...x.dims.slice(axis + 1)];
  const count = index.data.length;
  return make(dims, (n) => {
    const picked = index.data[Math.floor(n / inner) % count]!;
    if (picked < 0 || picked >= length) throw new Error(`index ${picked} of ${length}`);
    return x.data[(Math.floor(n / inner / count) * length + picked) * inner + (n % inner)]!;
  });
}

/** erf by its series and, far out, by its continued fraction. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; n < 80; n++) sum += (term *= (-a * a) / n) / (2 * n + 1);
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);
const unary: Record<string, (x: number) => number> = {
  Identity: (x) => x,
  Relu: (x) => Math.max(0, x),
  Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  Erf: erf,
  Tanh: Math.tanh,
  Sqrt: Math.sqrt,
  Log: Math.log,
  Floor: Math.floor,
  Ceil: Math.ceil,
  Not: (x) => (x === 0 ? 1 : 0),
};
const binary: Record<string, (x: number, y: number, whole: boolean) => number> = {
  Add: (x, y) => x + y,
  Sub: (x, y) => x - y,
  Mul: (x, y) => x * y,
  Div: (x, y, whole) => (whole ? Math.floor(x / y) : x / y),
  Max: (x, y) => Math.max(x, y),
  Equal: (x, y) => (x === y ? 1 : 0),
};

/** Runs the graph; integer tensors are those computed from shapes, constants of int64 and casts to it. */
export function run(model: Model, feeds: Record<string, Value>): Record<string, Value> {
  const values = new Map<string, Value>([...model.constants, ...Object.entries(feeds)]);
  const whole = new Set<string>([...model.constants.keys()].filter((name) => /^i-?\d/.test(name)));
  const get = (name: string) => {
    const value = values.get(name);
    if (!value) throw new Error(`no tensor ${name}`);
    return value;
  };
  for (const { type, inputs, outputs, attributes } of model.nodes) {
    const x = get(inputs[0]!);
    const input = (i: number) => get(inputs[i]!);
    const number = (name: string, fallback?: number) => (attributes.get(name) ?? fallback) as number;
    const integer = inputs.every((name) => whole.has(name));
    let y: Value;
    if (unary[type]) y = make(x.dims, (i) => unary[type]!(x.data[i]!));
    else if (binary[type]) y = broadcast(x, input(1), (a, b) => binary[type]!(a, b, integer));
    else if (type === 'MatMul') y = matmul(x, input(1));
    else if (type === 'FusedMatMul') y = matmul(x, input(1), number('alpha', 1), number('transB', 0) === 1);
    else if (type === 'Gemm') y = broadcast(matmul(x, input(1), 1, number('transB') === 1), input(2), (a, b) => a + b);
    else if (type === 'DynamicQuantizeMatMul') {
      const weight = broadcast(input(1), input(2), (q, s) => q * s);
      y = matmul(x, weight);
      if (inputs[4]) y = broadcast(y, input(4), (a, b) => a + b);
    } else if (type === 'LayerNormalization') {
      const [weight, bias] = [input(1), input(2)];
      y = alongLast(x, (row) => {
        const mean = sum(row) / row.length;
        const variance = sum(row.map((v) => (v - mean) ** 2)) / row.length;
        return row.map(
          (v, i) => ((v - mean) / Math.sqrt(variance + number('epsilon'))) * weight.data[i]! + bias.data[i]!,
        );
      });
    } else if (type === 'Softmax') {
      y = alongLast(x, (row) => {
        const top = Math.max(...row);
        const e = row.map((v) => Math.exp(v - top));
        const total = sum(e);
        return e.map((v) => v / total);
      });
    } else if (type === 'ReduceMean' || type === 'ReduceMax' || type === 'ReduceSum') {
      const axis = type === 'ReduceSum' ? input(1).data[0]! : (attributes.get('axes') as number[])[0]!;
      const f =
        type === 'ReduceMax'
          ? (v: number[]) => Math.max(...v)
          : type === 'ReduceSum'
            ? sum
            : (v: number[]) => sum(v) / v.length;
      y = reduce(x, axis, number('keepdims', 1) === 1, f);
    } else if (type === 'Transpose') y = transpose(x, attributes.get('perm') as number[]);
    else if (type === 'Reshape') {
      const known = Array.from(input(1).data, (n, i) => (n === 0 ? x.dims[i]! : n));
      const rest = x.data.length / size(known.filter((n) => n !== -1));
      y = { dims: known.map((n) => (n === -1 ? rest : n)), data: x.data };
      if (size(y.dims) !== x.data.length) throw new Error(`cannot reshape [${x.dims}] to [${known}]`);
    } else if (type === 'Concat') {
      const parts = inputs.map(get);
      const axis = number('axis') < 0 ? number('axis') + x.dims.length : number('axis');
      const dims = x.dims.map((n, i) => (i === axis ? sum(parts.map((p) => p.dims[axis]!)) : n));
      const data: number[] = [];
      for (let o = 0; o < size(x.dims.slice(0, axis)); o++)
        for (const part of parts) {
          const run = size(part.dims.slice(axis));
          data.push(...part.data.subarray(o * run, (o + 1) * run));
        }
      y = { dims, data: Float64Array.from(data) };
    } else if (type === 'Gather') y = gather(x, input(1), number('axis', 0));
    else if (type === 'GatherND') {
      const [rows, inner] = [x.dims[1]!, size(x.dims.slice(2))];
      const index = input(1);
      y = make([x.dims[0]!, ...x.dims.slice(2)], (n) => {
        const b = Math.floor(n / inner);
        return x.data[(b * rows + index.data[b]!) * inner + (n % inner)]!;
      });
    } else if (type === 'Unsqueeze') {
      const axis = input(1).data[0]!;
      y = { dims: [...x.dims.slice(0, axis), 1, ...x.dims.slice(axis)], data: x.data };
    } else if (type === 'Squeeze') {
      const axis = input(1).data[0]!;
      y = { dims: x.dims.filter((_, i) => i !== axis), data: x.data };
    } else if (type === 'Shape') y = { dims: [x.dims.length], data: Float64Array.from(x.dims) };
    else if (type === 'Slice') {
      const [from, to, axis] = [input(1).data[0]!, input(2).data[0]!, input(3).data[0]!];
      const index = Float64Array.from({ length: to - from }, (_, i) => from + i);
      y = gather(x, { dims: [index.length], data: index }, axis);
    } else if (type === 'Pad') {
      const pads = Array.from(input(1).data);
      if (pads.some((n, i) => n !== 0 && i !== 4) || x.dims.length !== 3) throw new Error(`pads [${pads}]`);
      const [b, l, d] = x.dims as [number, number, number];
      const rows = l + pads[4]!;
      y = make([b, rows, d], (n) => {
        const row = Math.floor(n / d) % rows;
        return row < l ? x.data[(Math.floor(n / d / rows) * l + row) * d + (n % d)]! : 0;
      });
    } else if (type === 'Cast') y = x;
    else if (type === 'CumSum') {
      const axis = input(1).data[0]!;
      if (axis !== 1 || x.dims.length !== 2) throw new Error('CumSum');
      y = alongLast(x, (row) => {
        let total = 0;
        return row.map((v) => (total += v));
      });
    } else if (type === 'Where') y = make(x.dims, (i) => (x.data[i] ? input(1) : input(2)).data[i]!);
    else if (type === 'OneHot') {
      const depth = input(1).data[0]!;
      y = make([...x.dims, depth], (n) => input(2).data[n % depth === x.data[Math.floor(n / depth)] ? 1 : 0]!);
    } else throw new Error(`operator ${type}`);
    const name = outputs[0]!;
    values.set(name, y);
    const toInteger = type === 'Cast' && number('to') === 7;
    const keeps = ['Gather', 'Concat', 'Where', 'Squeeze', 'Unsqueeze', 'Identity', 'Add', 'Sub', 'Mul', 'Div', 'Max'];
    const rest = type === 'Gather' ? inputs.slice(0, 1) : type === 'Where' ? inputs.slice(1) : inputs;
    if (type === 'Shape' || toInteger || (keeps.includes(type) && rest.every((n) => whole.has(n)))) whole.add(name);
  }
  return Object.fromEntries(model.outputs.map((name) => [name, get(name)]));
}
