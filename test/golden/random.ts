/** Random but valid configurations, sequences and batches. Every choice comes from one stream of numbers in [0, 1). */
import fc from 'fast-check';
import { type HPformerConfig, Tensor } from '../../src';
import type { Feeds } from '../../src/model/types';

export type Draw = () => number;

/**
 * Streams of numbers in [0, 1), each as likely as any other. `fc.double` would draw among all doubles, nearly all of which are
 * next to zero: every choice would be the first one.
 */
export const draws = () =>
  fc.infiniteStream(fc.noBias(fc.integer({ min: 0, max: 2 ** 32 - 1 })).map((x) => x / 2 ** 32));

const pick = <T>(draw: Draw, ...choices: T[]): T => choices[Math.floor(draw() * choices.length)]!;

/** A small configuration; anything in `fixed` is taken as it is. */
export function randomConfig(draw: Draw, fixed: Partial<HPformerConfig> = {}): HPformerConfig {
  const heads = pick(draw, 1, 2, 3, 4, 8);
  // Odd widths included; layouts need at least 4.
  const hidden = heads * Math.max(Math.ceil(4 / heads), pick(draw, 1, 2, 3, 5, 8));
  const embedding = pick<HPformerConfig['embedding']>(
    draw,
    { kind: 'features', size: pick(draw, 1, 3, 7, 12) },
    { kind: 'tokens', vocabulary: pick(draw, 5, 17, 40), padding: pick(draw, null, 0, 1) },
    { kind: 'scalar' },
  );
  const rule = pick(draw, 'upstream' as const, 'upstream' as const, 'paper' as const);
  const activations = ['relu', 'silu', 'gelu', 'gelu_tanh', 'linear'] as const;
  const readout = fixed.sequences === 2 ? 'mean' : pick(draw, 'steps' as const, 'step' as const, 'mean' as const);
  return {
    embedding,
    positions: pick<HPformerConfig['positions']>(
      draw,
      { kind: 'sinusoidal', layout: 'interleaved', scaleInput: draw() < 0.5 },
      { kind: 'sinusoidal', layout: 'halves', scaleInput: draw() < 0.5 },
      { kind: 'learned', maximum: 200 },
      { kind: 'none' },
    ),
    embeddingNorm: draw() < 0.4,
    hidden,
    heads,
    layers: pick(draw, 1, 2, 3),
    tiedLayers: draw() < 0.2,
    activation: pick(draw, ...activations),
    norm: pick(draw, 'layernorm', 'batchnorm', 'scalenorm', 'rmsnorm'),
    segments: {
      rule,
      times: rule === 'paper' ? 1 : pick(draw, 1, 1, 2),
      pooling: pick(draw, 'mean', 'max'),
      steps: null,
      over: pick(draw, 'padded', 'valid'),
    },
    readout,
    sequences: 1,
    head: {
      layers: Array.from({ length: pick(draw, 0, 0, 1, 2) }, () => ({
        size: pick(draw, 3, 8),
        activation: pick(draw, ...activations),
      })),
      labels: pick(draw, 1, 2, 5),
      bias: draw() < 0.5,
      link: pick(draw, 'sigmoid', 'softmax', 'none'),
    },
    ...fixed,
  };
}

/** One sequence: rows of numbers, or ids (some of them padding, but not the last). */
export function sequenceOf(config: HPformerConfig, length: number, draw: Draw): Float64Array {
  const { embedding } = config;
  if (embedding.kind === 'tokens') {
    const { padding, vocabulary } = embedding;
    return Float64Array.from({ length }, (_, t) => {
      const id = Math.floor(draw() * vocabulary);
      return id === padding && t === length - 1 ? (id + 1) % vocabulary : id;
    });
  }
  const width = embedding.kind === 'features' ? embedding.size : 1;
  return Float64Array.from({ length: length * width }, () => Math.fround(4 * draw() - 2));
}

/** A batch of sequences, each followed by zeros (padding ids), or by what must never be read, or by nothing. */
export function feedsOf(
  config: HPformerConfig,
  sequences: Float64Array[],
  steps: number,
  lengths: number[] | undefined,
  filler: 'zeros' | 'garbage' | 'none',
): Feeds {
  const { embedding } = config;
  const batch = sequences.length;
  const width = embedding.kind === 'features' ? embedding.size : 1;
  const feeds: Feeds = lengths ? { lengths: new Tensor('int32', Int32Array.from(lengths), [batch]) } : {};
  if (embedding.kind === 'tokens') {
    const data = new Int32Array(batch * steps).fill(filler === 'garbage' ? -77 : (embedding.padding ?? 0));
    for (const [b, sequence] of sequences.entries()) data.set(sequence, b * steps);
    return { tokens: new Tensor('int32', data, [batch, steps]), ...feeds };
  }
  const data = new Float32Array(batch * steps * width).fill(filler === 'garbage' ? Number.NaN : 0);
  for (const [b, sequence] of sequences.entries()) data.set(sequence, b * steps * width);
  return embedding.kind === 'features'
    ? { features: new Tensor('float32', data, [batch, steps, width]), ...feeds }
    : { values: new Tensor('float32', data, [batch, steps]), ...feeds };
}
