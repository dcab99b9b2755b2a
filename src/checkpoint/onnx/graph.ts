/** Builds an ONNX graph node by node; the file format is https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. */
import { ProtoMessage } from './protobuf';

/** ONNX element types in use, with their number in TensorProto.DataType. */
const elementTypes = { float32: 1, int8: 3, int32: 6, int64: 7, bool: 9, float64: 11 } as const;
export type OnnxType = keyof typeof elementTypes;

/** The name of a tensor inside the graph. */
export type Value = string;

/** One size of a reshape: known now, or an int64 [1] tensor made by the graph itself. */
export type Size = number | Value;

type Attribute = number | { float: number } | number[] | string | { type: OnnxType };
type ConstantData = Float32Array | Float64Array | Int8Array | Int32Array | BigInt64Array;

const opset = 17;
const microsoft = 'com.microsoft';

/** A graph under construction. Every method returns the name of the tensor it made. */
export class OnnxGraph {
  private readonly nodes: ProtoMessage[] = [];
  private readonly constants = new Map<string, { message: ProtoMessage; used: boolean }>();
  private readonly inputs: ProtoMessage[] = [];
  private readonly outputs: ProtoMessage[] = [];
  private counter = 0;
  private usesMicrosoft = false;

  input(name: string, type: OnnxType, dims: (number | string)[]): Value {
    this.inputs.push(valueInfo(name, type, dims));
    return name;
  }

  /** Names a tensor as a result of the graph. */
  output(name: string, from: Value, dims: (number | string)[]): void {
    this.node('Identity', [from], {}, [name]);
    this.outputs.push(valueInfo(name, 'float32', dims));
  }

  /** A constant; the same name is stored once. */
  constant(name: string, data: ConstantData, dims: readonly number[]): Value {
    if (!this.constants.has(name)) {
      const message = new ProtoMessage();
      for (const size of dims) message.int(1, size);
      message.int(2, elementTypes[typeOf(data)]).string(8, name);
      message.bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      this.constants.set(name, { message, used: false });
    }
    return name;
  }

  float(value: number): Value {
    return this.constant(`f${value}`, new Float32Array([value]), []);
  }

  int(...values: number[]): Value {
    return this.constant(`i${values.join('_')}`, new BigInt64Array(values.map(BigInt)), [values.length]);
  }

  op(type: string, inputs: Value[], attributes: Record<string, Attribute> = {}, domain = ''): Value {
    const name = `t${++this.counter}`;
    this.node(type, inputs, attributes, [name], domain);
    return name;
  }

  /** An operator of onnxruntime's own set. */
  microsoft(type: string, inputs: Value[], attributes: Record<string, Attribute> = {}): Value {
    this.usesMicrosoft = true;
    return this.op(type, inputs, attributes, microsoft);
  }

  private node(type: string, inputs: Value[], attributes: Record<string, Attribute>, out: Value[], domain = ''): void {
    const message = new ProtoMessage();
    for (const name of inputs) {
      message.string(1, name);
      const constant = this.constants.get(name);
      if (constant) constant.used = true;
    }
    for (const name of out) message.string(2, name);
    message.string(3, `${type}_${out[0]}`).string(4, type);
    for (const [name, value] of Object.entries(attributes)) message.message(5, attribute(name, value));
    if (domain) message.string(7, domain);
    this.nodes.push(message);
  }

  // --- sizes: folded when both sides are known, computed by the graph otherwise

  /** The size of one axis of a tensor, as a graph tensor. */
  sizeOf(value: Value, axis: number): Value {
    return this.op('Gather', [this.op('Shape', [value]), this.int(axis)], { axis: 0 });
  }

  private sizeValue(size: Size): Value {
    return typeof size === 'number' ? this.int(size) : size;
  }

  /** `a op b` on sizes; division rounds down (both are positive). */
  sizes(type: 'Add' | 'Sub' | 'Mul' | 'Div' | 'Max', a: Size, b: Size): Size {
    if (typeof a === 'number' && typeof b === 'number') {
      if (type === 'Add') return a + b;
      if (type === 'Sub') return a - b;
      if (type === 'Mul') return a * b;
      return type === 'Div' ? Math.floor(a / b) : Math.max(a, b);
    }
    return this.op(type, [this.sizeValue(a), this.sizeValue(b)]);
  }

  /** An int64 vector of sizes, for Reshape, Expand, Pad and Slice. */
  shape(dims: Size[]): Value {
    if (dims.every((size) => typeof size === 'number')) return this.int(...(dims as number[]));
    return this.op(
      'Concat',
      dims.map((size) => this.sizeValue(size)),
      { axis: 0 },
    );
  }

  reshape(value: Value, ...dims: Size[]): Value {
    return this.op('Reshape', [value, this.shape(dims)]);
  }

  /** The file: an ONNX ModelProto with `metadata` as string properties. */
  finish(name: string, metadata: Record<string, string>): Uint8Array {
    const graph = new ProtoMessage();
    for (const node of this.nodes) graph.message(1, node);
    graph.string(2, name);
    for (const { message, used } of this.constants.values()) if (used) graph.message(5, message);
    for (const input of this.inputs) graph.message(11, input);
    for (const output of this.outputs) graph.message(12, output);
    const model = new ProtoMessage().int(1, 8).string(2, 'hpformer').message(7, graph);
    model.message(8, new ProtoMessage().string(1, '').int(2, opset));
    if (this.usesMicrosoft) model.message(8, new ProtoMessage().string(1, microsoft).int(2, 1));
    for (const [key, value] of Object.entries(metadata)) {
      model.message(14, new ProtoMessage().string(1, key).string(2, value));
    }
    return model.finish();
  }
}

function typeOf(data: ConstantData): OnnxType {
  if (data instanceof Float32Array) return 'float32';
  if (data instanceof Float64Array) return 'float64';
  if (data instanceof Int8Array) return 'int8';
  return data instanceof Int32Array ? 'int32' : 'int64';
}

function attribute(name: string, value: Attribute): ProtoMessage {
  const message = new ProtoMessage().string(1, name);
  if (typeof value === 'number') return message.int(3, value).int(20, 2);
  if (typeof value === 'string') return message.string(4, value).int(20, 3);
  if (Array.isArray(value)) {
    for (const item of value) message.int(8, item);
    return message.int(20, 7);
  }
  if ('type' in value) return message.int(3, elementTypes[value.type]).int(20, 2);
  return message.float(2, value.float).int(20, 1);
}

function valueInfo(name: string, type: OnnxType, dims: (number | string)[]): ProtoMessage {
  const shape = new ProtoMessage();
  for (const size of dims) {
    shape.message(1, typeof size === 'number' ? new ProtoMessage().int(1, size) : new ProtoMessage().string(2, size));
  }
  const tensor = new ProtoMessage().int(1, elementTypes[type]).message(2, shape);
  return new ProtoMessage().string(1, name).message(2, new ProtoMessage().message(1, tensor));
}
