/** Constants of an exported graph: positions, folded norms, quantised weights. Made in double precision, rounded once. */

/**
 * Sinusoidal positions, `rows` x `hidden` in double precision (reference section 3.2 for `halves`, section 4 for
 * `interleaved`). Row `zeroRow`, if any, is all zero (the padding position of text models).
 */
export function sinusoidalTable(
  layout: 'interleaved' | 'halves',
  rows: number,
  hidden: number,
  zeroRow: number | null,
): Float64Array {
  const table = new Float64Array(rows * hidden);
  const half = Math.floor(hidden / 2);
  for (let row = 0; row < rows; row++) {
    if (row === zeroRow) continue;
    const base = row * hidden;
    if (layout === 'interleaved') {
      for (let column = 0; column < hidden; column++) {
        const angle = row * Math.exp((-(column & ~1) * Math.log(10000)) / hidden);
        table[base + column] = column & 1 ? Math.cos(angle) : Math.sin(angle);
      }
    } else {
      for (let j = 0; j < half; j++) {
        const angle = row * Math.exp((-j * Math.log(10000)) / (half - 1));
        table[base + j] = Math.sin(angle);
        table[base + half + j] = Math.cos(angle);
      }
    }
  }
  return table;
}

/** `matrix` [rows, columns] turned to [columns, rows], in float32. */
export function transposed(matrix: ArrayLike<number>, rows: number, columns: number): Float32Array {
  const out = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = matrix[i * columns + j]!;
  return out;
}

/** Eval batch norm as `x * scale + shift`, folded in double precision. */
export function foldedBatchNorm(
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  mean: ArrayLike<number>,
  variance: ArrayLike<number>,
  epsilon: number,
): { scale: Float32Array; shift: Float32Array } {
  const scale = new Float32Array(weight.length);
  const shift = new Float32Array(weight.length);
  for (let i = 0; i < weight.length; i++) {
    const factor = weight[i]! / Math.sqrt(variance[i]! + epsilon);
    scale[i] = factor;
    shift[i] = bias[i]! - mean[i]! * factor;
  }
  return { scale, shift };
}

/**
 * Symmetric 8-bit weights, one scale per output column; `values` are [inputs, outputs]. Only -63..63 is used: processors
 * without VNNI add pairs of u8 x s8 products in 16 bits, and the full range saturates there.
 */
export function quantised(
  matrix: ArrayLike<number>,
  outputs: number,
  inputs: number,
): { values: Int8Array; scale: Float32Array } {
  const values = new Int8Array(outputs * inputs);
  const scale = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let largest = 0;
    for (let i = 0; i < inputs; i++) largest = Math.max(largest, Math.abs(matrix[o * inputs + i]!));
    scale[o] = largest > 0 ? largest / 63 : 1;
    for (let i = 0; i < inputs; i++) values[i * outputs + o] = Math.round(matrix[o * inputs + i]! / scale[o]!);
  }
  return { values, scale };
}

/** `data` times `factor`, in float32. */
export function scaled(data: ArrayLike<number>, factor: number): Float32Array {
  return Float32Array.from(data, (value) => value * factor);
}
