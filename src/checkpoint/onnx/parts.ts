/** The building blocks of an exported model: linear layers, norms, activations, softmax products. */
import type { Activation, HPformerConfig } from '../../config/types';
import { HPformerError } from '../../errors';
import type { OnnxGraph, Value } from './graph';
import { foldedBatchNorm, quantised, transposed } from './tables';

/** Parameters by canonical name, row-major. */
export type OnnxWeights = Readonly<Record<string, ArrayLike<number>>>;

const epsilon = 1e-5;

export class Parts {
  constructor(
    readonly graph: OnnxGraph,
    readonly config: HPformerConfig,
    private readonly weights: OnnxWeights,
    /** Weight products in 8 bit with onnxruntime's DynamicQuantizeMatMul. */
    private readonly int8: boolean,
    /** True: products over [rows, width]; false: over [batch, steps, width], one operator per formula. */
    readonly flat: boolean,
    /** Use onnxruntime's FusedMatMul where a product is scaled or transposed. */
    private readonly contrib: boolean,
  ) {}

  weight(name: string): ArrayLike<number> {
    const data = this.weights[name];
    if (!data)
      throw new HPformerError('ERR_HPFORMER_CHECKPOINT', `${name}: expected a parameter of this name, got none`);
    return data;
  }

  /** A parameter as a float32 constant. */
  parameter(name: string, dims: number[]): Value {
    const data = this.weight(name);
    const size = dims.reduce((a, b) => a * b, 1);
    if (data.length !== size) {
      throw new HPformerError(
        'ERR_HPFORMER_CHECKPOINT',
        `${name}: expected ${size} values for [${dims.join(', ')}], got ${data.length}`,
      );
    }
    return this.graph.constant(name, data instanceof Float32Array ? data : Float32Array.from(data), dims);
  }

  /** `x · Wᵀ`, W stored [outputs, inputs], on the last axis of `x` whatever its rank. */
  product(x: Value, weight: string, outputs: number, inputs: number): Value {
    return this.graph.op('MatMul', [x, this.transposedParameter(weight, outputs, inputs)]);
  }

  private transposedParameter(weight: string, outputs: number, inputs: number): Value {
    this.parameter(weight, [outputs, inputs]);
    return this.graph.constant(`${weight}.T`, transposed(this.weight(weight), outputs, inputs), [inputs, outputs]);
  }

  /** A linear layer; `x` is [rows, inputs] when `flat`, of any rank otherwise. */
  linear(x: Value, weight: string, bias: string | null, outputs: number, inputs: number, int8 = this.int8): Value {
    const g = this.graph;
    if (int8) {
      const { values, scale } = quantised(this.weight(weight), outputs, inputs);
      const operands = [
        x,
        g.constant(`${weight}.q`, values, [inputs, outputs]),
        g.constant(`${weight}.s`, scale, [outputs]),
        g.constant(`${weight}.z`, new Int8Array(outputs), [outputs]),
      ];
      if (bias) operands.push(this.parameter(bias, [outputs]));
      return g.microsoft('DynamicQuantizeMatMul', operands);
    }
    if (this.flat && bias) {
      return g.op('Gemm', [x, this.parameter(weight, [outputs, inputs]), this.parameter(bias, [outputs])], {
        transB: 1,
      });
    }
    const y = this.product(x, weight, outputs, inputs);
    return bias ? g.op('Add', [y, this.parameter(bias, [outputs])]) : y;
  }

  activate(x: Value, activation: Activation): Value {
    const g = this.graph;
    switch (activation) {
      case 'linear':
        return x;
      case 'relu':
        return g.op('Relu', [x]);
      case 'silu':
        return g.op('Mul', [x, g.op('Sigmoid', [x])]);
      case 'gelu': {
        const erf = g.op('Erf', [g.op('Div', [x, g.float(Math.SQRT2)])]);
        return g.op('Mul', [g.op('Mul', [x, g.op('Add', [erf, g.float(1)])]), g.float(0.5)]);
      }
      case 'gelu_tanh': {
        const cube = g.op('Mul', [g.op('Mul', [x, x]), x]);
        const inner = g.op('Add', [x, g.op('Mul', [cube, g.float(0.044715)])]);
        const tanh = g.op('Tanh', [g.op('Mul', [inner, g.float(Math.sqrt(2 / Math.PI))])]);
        return g.op('Mul', [g.op('Mul', [x, g.float(0.5)]), g.op('Add', [tanh, g.float(1)])]);
      }
    }
  }

  layerNorm(x: Value, name: string): Value {
    const { hidden } = this.config;
    const operands = [x, this.parameter(`${name}.weight`, [hidden]), this.parameter(`${name}.bias`, [hidden])];
    return this.graph.op('LayerNormalization', operands, { axis: -1, epsilon: { float: epsilon } });
  }

  /** A norm of the layers, by `config.norm` (reference section 2). */
  norm(x: Value, name: string): Value {
    const g = this.graph;
    const { hidden, norm } = this.config;
    if (norm === 'layernorm') return this.layerNorm(x, name);
    if (norm === 'batchnorm') {
      const part = (field: string) => this.weight(`${name}.${field}`);
      const { scale, shift } = foldedBatchNorm(part('weight'), part('bias'), part('mean'), part('variance'), epsilon);
      const multiplied = g.op('Mul', [x, g.constant(`${name}.scale`, scale, [hidden])]);
      return g.op('Add', [multiplied, g.constant(`${name}.shift`, shift, [hidden])]);
    }
    const square = g.op('ReduceMean', [g.op('Mul', [x, x])], { axes: [-1], keepdims: 1 });
    const root = g.op('Sqrt', [g.op('Add', [square, g.float(epsilon)])]);
    const weight = this.parameter(`${name}.weight`, [norm === 'scalenorm' ? 1 : hidden]);
    return g.op('Mul', [g.op('Div', [x, root]), weight]);
  }

  /** `scale · a · bᵀ` over the last two axes; `a` and `b` have rank 3 (or 4 for both). */
  scores(a: Value, b: Value, scale: number, rank: 3 | 4 = 3): Value {
    const g = this.graph;
    if (this.contrib) return g.microsoft('FusedMatMul', [a, b], { transB: 1, alpha: { float: scale } });
    const perm = rank === 3 ? [0, 2, 1] : [0, 1, 3, 2];
    return g.op('Mul', [g.op('MatMul', [a, g.op('Transpose', [b], { perm })]), g.float(scale)]);
  }

  softmax(x: Value): Value {
    return this.graph.op('Softmax', [x], { axis: -1 });
  }
}
