/** A full-attention Transformer encoder of a case's size as an ONNX graph: query, key and value projections, one-linear feed-forward. */
import { uniform } from './cases';
import { onnxGraph } from './package';

export interface TransformerSize {
  steps: number;
  features: number;
  hidden: number;
  heads: number;
  layers: number;
}

/** `fused` uses onnxruntime's MultiHeadAttention (tiled, online softmax); otherwise plain products. Output `probabilities` [B, L, 1]. */
export function transformerOnnx(size: TransformerSize, fused: boolean): Uint8Array {
  const { OnnxGraph } = onnxGraph();
  const g = new OnnxGraph();
  const { steps, features, hidden, heads, layers } = size;
  const width = hidden / heads;
  let seed = 1;
  const random = (name: string, dims: number[], fanIn: number) => {
    const data = uniform(
      dims.reduce((a, b) => a * b, 1),
      seed++,
    );
    return g.constant(
      name,
      data.map((x) => x / Math.sqrt(fanIn)),
      dims,
    );
  };
  const linear = (x: string, name: string, outputs: number, inputs: number) =>
    g.op('Gemm', [x, random(`${name}.w`, [outputs, inputs], inputs), random(`${name}.b`, [outputs], inputs)], {
      transB: 1,
    });
  const ones = g.constant('ones', new Float32Array(hidden).fill(1), [hidden]);
  const zeros = g.constant('zeros', new Float32Array(hidden), [hidden]);
  const norm = (x: string) => g.op('LayerNormalization', [x, ones, zeros], { axis: -1, epsilon: { float: 1e-5 } });
  const split = (x: string, perm: number[]) => g.op('Transpose', [g.reshape(x, -1, steps, heads, width)], { perm });

  const input = g.input('features', 'float32', ['batch', steps, features]);
  let x = linear(g.reshape(input, -1, features), 'embedding', hidden, features);
  for (let i = 0; i < layers; i++) {
    const [q, k, v] = ['q', 'k', 'v'].map((part) => linear(x, `${i}.${part}`, hidden, hidden)) as [
      string,
      string,
      string,
    ];
    let attended: string;
    if (fused) {
      const three = (value: string) => g.reshape(value, -1, steps, hidden);
      attended = g.microsoft('MultiHeadAttention', [three(q), three(k), three(v)], { num_heads: heads });
    } else {
      const product = g.op('MatMul', [split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])]);
      const weights = g.op('Softmax', [g.op('Mul', [product, g.float(1 / Math.sqrt(width))])], { axis: -1 });
      attended = g.op('Transpose', [g.op('MatMul', [weights, split(v, [0, 2, 1, 3])])], { perm: [0, 2, 1, 3] });
    }
    attended = linear(g.reshape(attended, -1, hidden), `${i}.o`, hidden, hidden);
    x = norm(g.op('Add', [x, attended]));
    x = norm(g.op('Add', [x, g.op('Relu', [linear(x, `${i}.f`, hidden, hidden)])]));
  }
  const logits = g.reshape(linear(x, 'head', 1, hidden), -1, steps, 1);
  g.output('probabilities', g.op('Sigmoid', [logits]), ['batch', steps, 1]);
  return g.finish('transformer', {});
}
