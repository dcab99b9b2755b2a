/** HPformer in tfjs operators on the wasm backend: block-diagonal keys, one product for all heads, weights transposed beforehand. */
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import { setThreadsCount } from '@tensorflow/tfjs-backend-wasm';
import type { inputOf } from './cases';
import { type Config, onnxTables } from './package';

type Weights = Record<string, Float32Array>;

/** A function that gives the logits; undefined for models that this form does not cover (tokens, other norms, two sequences). */
export async function openTfjs(
  config: Config,
  weights: Weights,
  input: ReturnType<typeof inputOf>,
  steps: number,
): Promise<(() => Promise<Float32Array>) | undefined> {
  const { embedding, hidden, heads, layers, positions, norm, segments } = config;
  const covered = embedding.kind !== 'tokens' && positions.kind === 'sinusoidal' && norm === 'layernorm';
  if (!covered || segments.pooling !== 'mean' || config.sequences !== 1 || config.tiedLayers) return undefined;
  setThreadsCount(1);
  await tf.setBackend('wasm');
  const { segmentsOf } = onnxTables();
  const { count, length, padding } = segmentsOf(config, steps);
  const w = (name: string) => weights[name]!;
  const vector = (name: string) => tf.tensor1d(w(name));
  // fused.matMul with transposeB and a bias gives wrong sums on wasm; transposing once is also faster.
  const matrix = (name: string, rows: number, columns: number) => tf.transpose(tf.tensor2d(w(name), [rows, columns]));
  const factor = positions.scaleInput ? Math.sqrt(hidden) : 1;
  const table = Float32Array.from(onnxTables().sinusoidalTable(positions.layout, steps, hidden, null));
  const place = tf.tensor3d(table, [1, steps, hidden]);
  const mask = new Float32Array(heads * hidden);
  for (let c = 0; c < hidden; c++) mask[Math.floor((c * heads) / hidden) * hidden + c] = 1;
  const spread = tf.tensor4d(mask, [1, heads, 1, hidden]);
  const wE =
    embedding.kind === 'features' ? matrix('embedding.weight', hidden, embedding.size) : vector('embedding.weight');
  const bE = vector('embedding.bias');
  const [wF, bF] = [matrix('tdhp.fusion.weight', hidden, 2 * hidden), vector('tdhp.fusion.bias')];
  const emb = config.embeddingNorm ? [vector('embeddingNorm.weight'), vector('embeddingNorm.bias')] : undefined;
  const stack = Array.from({ length: layers }, (_, i) => ({
    output: matrix(`layers.${i}.output.weight`, hidden, hidden),
    forward: matrix(`layers.${i}.feedForward.weight`, hidden, hidden),
    bias: vector(`layers.${i}.feedForward.bias`),
    norms: [1, 2].map((n) => [vector(`layers.${i}.norm${n}.weight`), vector(`layers.${i}.norm${n}.bias`)]),
  }));
  let width = hidden;
  const head = config.head.layers.map(({ size, activation }, j) => {
    const layer = { w: matrix(`head.layers.${j}.weight`, size, width), b: vector(`head.layers.${j}.bias`), activation };
    width = size;
    return layer;
  });
  const wO = matrix('head.output.weight', config.head.labels, width);
  const bO = config.head.bias ? vector('head.output.bias') : undefined;
  const x = tf.tensor(input.tensor.data, input.tensor.dims, 'float32');
  const batch = input.tensor.dims[0]!;

  const layerNorm = (t: tf.Tensor, [weight, bias]: tf.Tensor[]) => {
    const centred = tf.sub(t, tf.mean(t, -1, true));
    const deviation = tf.sqrt(tf.add(tf.mean(tf.square(centred), -1, true), 1e-5));
    return tf.add(tf.mul(tf.div(centred, deviation), weight!), bias!);
  };
  const activate = (t: tf.Tensor, kind: string): tf.Tensor => {
    if (kind === 'relu') return tf.relu(t);
    if (kind === 'silu') return tf.mul(t, tf.sigmoid(t));
    if (kind === 'gelu') return tf.mul(t, tf.mul(0.5, tf.add(1, tf.erf(tf.div(t, Math.SQRT2)))));
    return t;
  };
  const logits = () =>
    tf.tidy(() => {
      let e =
        embedding.kind === 'features'
          ? tf.reshape(tf.add(tf.matMul(tf.reshape(x, [batch * steps, embedding.size]), wE as tf.Tensor2D), bE), [
              batch,
              steps,
              hidden,
            ])
          : tf.add(tf.mul(tf.expandDims(x, 2), wE), bE);
      e = tf.add(factor === 1 ? e : tf.mul(e, factor), place);
      if (emb) e = layerNorm(e, emb);
      const padded =
        padding === 0
          ? e
          : tf.pad(e, [
              [0, 0],
              [0, padding],
              [0, 0],
            ]);
      const chunks = tf.reshape(padded, [batch * count, length, hidden]) as tf.Tensor3D;
      const pooled = tf.reshape(tf.mean(chunks, 1), [batch, count, hidden]) as tf.Tensor3D;
      const scale = 1 / Math.sqrt(hidden);
      const extra = tf.matMul(tf.softmax(tf.mul(tf.matMul(pooled, pooled, false, true), scale)), pooled);
      const query = tf.reshape(extra, [batch * count, 1, hidden]) as tf.Tensor3D;
      const intra = tf.matMul(tf.softmax(tf.mul(tf.matMul(query, chunks, false, true), scale)), chunks);
      const both = tf.concat(
        [tf.reshape(extra, [batch * count, hidden]), tf.reshape(intra, [batch * count, hidden])],
        1,
      );
      const keys = tf.reshape(tf.add(tf.matMul(both as tf.Tensor2D, wF as tf.Tensor2D), bF), [batch, 1, count, hidden]);
      const diagonal = tf.reshape(tf.mul(keys, spread), [batch, heads * count, hidden]) as tf.Tensor3D;
      const rows = config.readout === 'step' ? 1 : steps;
      let y: tf.Tensor = rows === 1 ? tf.slice(e, [0, steps - 1, 0], [batch, 1, hidden]) : e;
      y = tf.reshape(y, [batch * rows, hidden]);
      for (const { output, forward, bias, norms } of stack) {
        const scores = tf.mul(
          tf.matMul(tf.reshape(y, [batch, rows, hidden]) as tf.Tensor3D, diagonal, false, true),
          Math.sqrt(heads / hidden),
        );
        const p = tf.reshape(tf.softmax(tf.reshape(scores, [batch * rows * heads, count])), [
          batch,
          rows,
          heads * count,
        ]);
        const context = tf.reshape(tf.matMul(p as tf.Tensor3D, diagonal), [batch * rows, hidden]) as tf.Tensor2D;
        y = layerNorm(tf.add(y, tf.matMul(context, output as tf.Tensor2D)), norms[0]!);
        const branch = tf.add(tf.matMul(y as tf.Tensor2D, forward as tf.Tensor2D), bias);
        y = layerNorm(tf.add(y, activate(branch, config.activation)), norms[1]!);
      }
      if (config.readout === 'mean') y = tf.mean(tf.reshape(y, [batch, rows, hidden]), 1);
      for (const { w: weight, b, activation } of head) {
        y = activate(tf.add(tf.matMul(y as tf.Tensor2D, weight as tf.Tensor2D), b), activation);
      }
      const out = tf.matMul(y as tf.Tensor2D, wO as tf.Tensor2D);
      return bO ? tf.add(out, bO) : out;
    });
  return async () => {
    const result = logits();
    const data = (await result.data()) as Float32Array;
    result.dispose();
    return data;
  };
}
