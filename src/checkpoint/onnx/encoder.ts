/** The encoder of an exported graph: embedding, segment block (reference section 1) and layers (section 2). */
import { segmentsOf } from '../../config/segments';
import type { Size, Value } from './graph';
import type { Parts } from './parts';
import { scaled, sinusoidalTable } from './tables';

/** How the attention of a layer is written; see `OnnxVariant`. */
export type AttentionForm = 'heads' | 'bdiag' | 'fold';

/** One input sequence as the graph sees it. */
export interface SequenceInput {
  /** features [B, L, F], tokens [B, L] or values [B, L]. */
  value: Value;
  steps: Size;
  /** The largest number of steps; equals `steps` when that is fixed. */
  maximum: number;
  /** tokens: [B, L, 1] float, 0 at padding; null when no token is padding. */
  present: Value | null;
  /** tokens: bool [B, L], true at padding; goes with `present`. */
  padded: Value | null;
}

/** Rows [B, L, hidden] that enter the segment block. */
export function embed(parts: Parts, input: SequenceInput): Value {
  const { graph: g, config } = parts;
  const { hidden, embedding, positions } = config;
  const factor = positions.kind === 'sinusoidal' && positions.scaleInput ? Math.sqrt(hidden) : 1;
  const place = positionRows(parts, input);
  let x: Value;
  if (embedding.kind === 'tokens') {
    const table = parts.weight('embedding.weight');
    const dims = [embedding.vocabulary, hidden];
    parts.parameter('embedding.weight', dims);
    if (parts.flat && factor !== 1) {
      x = g.op('Gather', [g.constant('embedding.scaled', scaled(table, factor), dims), input.value], { axis: 0 });
    } else {
      x = g.op('Gather', ['embedding.weight', input.value], { axis: 0 });
      if (factor !== 1) x = g.op('Mul', [x, g.float(factor)]);
    }
  } else if (embedding.kind === 'scalar') {
    const column = g.op('Unsqueeze', [input.value, g.int(2)]);
    x = g.op('Mul', [column, parts.parameter('embedding.weight', [hidden])]);
    x = g.op('Add', [x, parts.parameter('embedding.bias', [hidden])]);
    if (factor !== 1) x = g.op('Mul', [x, g.float(factor)]);
  } else {
    const rows = parts.flat ? g.reshape(input.value, -1, embedding.size) : input.value;
    x = parts.linear(rows, 'embedding.weight', 'embedding.bias', hidden, embedding.size);
    if (parts.flat) x = g.reshape(x, -1, input.steps, hidden);
    if (factor !== 1) x = g.op('Mul', [x, g.float(factor)]);
  }
  if (place) x = g.op('Add', [x, place]);
  if (config.embeddingNorm) x = parts.layerNorm(x, 'embeddingNorm');
  return input.present ? g.op('Mul', [x, input.present]) : x;
}

/** The position vectors to add: [L, hidden], or [B, L, hidden] where padding tokens shift them. */
function positionRows(parts: Parts, input: SequenceInput): Value | null {
  const { graph: g, config } = parts;
  const { positions, embedding, hidden } = config;
  if (positions.kind === 'none') return null;
  const padding = embedding.kind === 'tokens' ? embedding.padding : null;
  const first = padding === null ? 0 : padding + 1;
  const rows = input.maximum + first;
  let table: Value;
  if (positions.kind === 'learned') {
    table = parts.parameter('positions.weight', [positions.maximum + first, hidden]);
  } else {
    const data = sinusoidalTable(positions.layout, rows, hidden, padding);
    table = g.constant(`positions.${rows}`, Float32Array.from(data), [rows, hidden]);
  }
  if (!input.padded || padding === null) {
    return g.op('Slice', [table, g.int(first), g.shape([g.sizes('Add', first, input.steps)]), g.int(0)]);
  }
  const real = g.op('Cast', [g.op('Not', [input.padded])], { to: { type: 'int64' } });
  const count = g.op('CumSum', [real, g.int(1)]);
  const index = g.op('Add', [g.op('Mul', [count, real]), g.int(padding)]);
  return g.op('Gather', [table, index], { axis: 0 });
}

/** Segments S, their length b and the appended zero rows for L steps; computed by the graph itself where L is open. */
export function cut(parts: Parts, steps: Size): { count: Size; length: Size; padding: Size } {
  const { graph: g, config } = parts;
  if (typeof steps === 'number') return segmentsOf(config, steps);
  const { rule, times, steps: fixed } = config.segments;
  let logarithm: Size;
  if (fixed !== null) {
    logarithm = rule === 'paper' ? Math.ceil(Math.log(fixed)) : Math.floor(Math.log(fixed));
  } else {
    const log = g.op('Log', [g.op('Cast', [steps], { to: { type: 'float64' } })]);
    logarithm = g.op('Cast', [g.op(rule === 'paper' ? 'Ceil' : 'Floor', [log])], { to: { type: 'int64' } });
  }
  let count: Size;
  let length: Size;
  if (rule === 'paper') {
    const c = g.sizes('Max', 1, logarithm);
    length = g.sizes('Max', 1, g.sizes('Div', steps, c));
    const covering = g.sizes('Div', g.sizes('Sub', g.sizes('Add', steps, length), 1), length);
    count = g.sizes('Max', g.sizes('Add', c, 1), covering);
  } else {
    const n0 = g.sizes('Mul', g.sizes('Add', logarithm, 1), times);
    length = g.sizes('Div', steps, n0);
    const more = g.sizes('Add', g.sizes('Div', steps, length), 1);
    const rest = g.sizes('Sub', steps, g.sizes('Mul', length, n0));
    count = g.op('Where', [g.op('Equal', [g.shape([rest]), g.int(0)]), g.shape([n0]), g.shape([more])]);
  }
  return { count, length, padding: g.sizes('Sub', g.sizes('Mul', count, length), steps) };
}

/** K_comp [B, S, hidden] of the embedded rows [B, L, hidden]. */
export function compressedKeys(parts: Parts, embedded: Value, steps: Size): { keys: Value; segments: Size } {
  const { graph: g, config } = parts;
  const { hidden } = config;
  const { count, length, padding } = cut(parts, steps);
  const scale = 1 / Math.sqrt(hidden);
  const rows = padding === 0 ? embedded : g.op('Pad', [embedded, g.shape([0, 0, 0, 0, padding, 0])]);
  const chunks = g.reshape(rows, -1, length, hidden);
  const reduce = config.segments.pooling === 'mean' ? 'ReduceMean' : 'ReduceMax';
  const pooled = g.reshape(g.op(reduce, [chunks], { axes: [1], keepdims: 0 }), -1, count, hidden);
  const extra = g.op('MatMul', [parts.softmax(parts.scores(pooled, pooled, scale)), pooled]);
  const query = g.reshape(extra, -1, 1, hidden);
  const intra = g.op('MatMul', [parts.softmax(parts.scores(query, chunks, scale)), chunks]);
  const width = 2 * hidden;
  const both = parts.flat
    ? g.op('Concat', [g.reshape(extra, -1, hidden), g.reshape(intra, -1, hidden)], { axis: -1 })
    : g.op('Concat', [extra, g.reshape(intra, -1, count, hidden)], { axis: -1 });
  const fused = parts.linear(both, 'tdhp.fusion.weight', 'tdhp.fusion.bias', hidden, width);
  return { keys: parts.flat ? g.reshape(fused, -1, count, hidden) : fused, segments: count };
}

/** All layers on rows [B, R, hidden] against the shared keys; result of the same shape. */
export function layers(parts: Parts, x: Value, rows: Size, keys: Value, segments: Size, form: AttentionForm): Value {
  const { graph: g, config } = parts;
  const { hidden, heads } = config;
  const width = hidden / heads;
  const scale = 1 / Math.sqrt(width);
  const split = (value: Value, size: Size) =>
    g.op('Transpose', [g.reshape(value, -1, size, heads, width)], { perm: [0, 2, 1, 3] });
  let perHead: Value = '';
  let diagonal: Value = '';
  if (form === 'heads') {
    perHead = split(keys, segments);
  } else {
    // Row (head g, segment s) holds K_s in head g's columns and zeros elsewhere: all heads become one product.
    const mask = new Float32Array(heads * hidden);
    for (let column = 0; column < hidden; column++) mask[Math.floor(column / width) * hidden + column] = 1;
    const masked = g.op('Mul', [g.op('Unsqueeze', [keys, g.int(1)]), g.constant('headMask', mask, [heads, 1, hidden])]);
    diagonal = g.reshape(masked, -1, g.sizes('Mul', heads, segments), hidden);
  }
  if (parts.flat) x = g.reshape(x, -1, hidden);
  for (let i = 0; i < config.layers; i++) {
    const name = `layers.${config.tiedLayers ? 0 : i}`;
    let attended: Value;
    if (form === 'heads') {
      const weights = parts.softmax(parts.scores(split(x, rows), perHead, scale, 4));
      const joined = g.op('Transpose', [g.op('MatMul', [weights, perHead])], { perm: [0, 2, 1, 3] });
      attended = g.reshape(joined, -1, rows, hidden);
      if (parts.flat) attended = g.reshape(attended, -1, hidden);
      attended = parts.linear(attended, `${name}.output.weight`, null, hidden, hidden);
    } else {
      const all = g.sizes('Mul', heads, segments);
      const scores = parts.scores(g.reshape(x, -1, rows, hidden), diagonal, scale);
      const weights = g.reshape(parts.softmax(g.reshape(scores, -1, segments)), -1, rows, all);
      if (form === 'fold') {
        const folded = parts.product(g.reshape(diagonal, -1, hidden), `${name}.output.weight`, hidden, hidden);
        attended = g.reshape(g.op('MatMul', [weights, g.reshape(folded, -1, all, hidden)]), -1, hidden);
      } else {
        const context = g.reshape(g.op('MatMul', [weights, diagonal]), -1, hidden);
        attended = parts.linear(context, `${name}.output.weight`, null, hidden, hidden);
      }
    }
    x = parts.norm(g.op('Add', [x, attended]), `${name}.norm1`);
    const forward = parts.linear(x, `${name}.feedForward.weight`, `${name}.feedForward.bias`, hidden, hidden);
    x = parts.norm(g.op('Add', [x, parts.activate(forward, config.activation)]), `${name}.norm2`);
  }
  return parts.flat ? g.reshape(x, -1, rows, hidden) : x;
}
