import type { HPformerConfig } from '../config/types';

type Dims = readonly number[];

/** Shapes of one norm's parameters, by its kind (reference section 2). */
function addNorm(shapes: Map<string, Dims>, name: string, norm: HPformerConfig['norm'], hidden: number): void {
  shapes.set(`${name}.weight`, norm === 'scalenorm' ? [1] : [hidden]);
  if (norm === 'layernorm' || norm === 'batchnorm') shapes.set(`${name}.bias`, [hidden]);
  if (norm === 'batchnorm') {
    shapes.set(`${name}.mean`, [hidden]);
    shapes.set(`${name}.variance`, [hidden]);
  }
}

/**
 * Every parameter that a model of this configuration reads: canonical name → dims, in the order of the computation.
 * Matrices are (out, in), row-major. Tied layers have `layers.0` only.
 */
export function parameterShapes(config: HPformerConfig): Map<string, Dims> {
  const { embedding, positions, hidden, head } = config;
  const shapes = new Map<string, Dims>();
  if (embedding.kind === 'tokens') shapes.set('embedding.weight', [embedding.vocabulary, hidden]);
  else {
    shapes.set('embedding.weight', embedding.kind === 'features' ? [hidden, embedding.size] : [hidden]);
    shapes.set('embedding.bias', [hidden]);
  }
  if (positions.kind === 'learned')
    shapes.set('positions.weight', [positions.maximum + positionOffset(config), hidden]);
  if (config.embeddingNorm) addNorm(shapes, 'embeddingNorm', 'layernorm', hidden);
  shapes.set('tdhp.fusion.weight', [hidden, 2 * hidden]);
  shapes.set('tdhp.fusion.bias', [hidden]);
  for (let i = 0; i < (config.tiedLayers ? 1 : config.layers); i++) {
    shapes.set(`layers.${i}.output.weight`, [hidden, hidden]);
    addNorm(shapes, `layers.${i}.norm1`, config.norm, hidden);
    shapes.set(`layers.${i}.feedForward.weight`, [hidden, hidden]);
    shapes.set(`layers.${i}.feedForward.bias`, [hidden]);
    addNorm(shapes, `layers.${i}.norm2`, config.norm, hidden);
  }
  let width = hidden * config.sequences;
  for (const [j, { size }] of head.layers.entries()) {
    shapes.set(`head.layers.${j}.weight`, [size, width]);
    shapes.set(`head.layers.${j}.bias`, [size]);
    width = size;
  }
  shapes.set('head.output.weight', [head.labels, width]);
  if (head.bias) shapes.set('head.output.bias', [head.labels]);
  return shapes;
}

/** Rows of a learned position table before the first usable one: with a padding id, indices start after it (reference 3.2). */
export function positionOffset(config: Pick<HPformerConfig, 'embedding'>): number {
  return config.embedding.kind === 'tokens' && config.embedding.padding !== null ? config.embedding.padding + 1 : 0;
}

const product = (dims: Dims) => dims.reduce((a, b) => a * b, 1);

/** Running statistics are read by the model but not trained. */
const isStatistic = (name: string) => /\.(mean|variance)$/.test(name);

/**
 * Numbers that the forward pass reads (`used`), and those of them that training moves (`trainable`: without batchnorm's
 * running statistics; what PyTorch counts as parameters).
 */
export function parameterCount(config: HPformerConfig): { used: number; trainable: number } {
  let used = 0;
  let trainable = 0;
  for (const [name, dims] of parameterShapes(config)) {
    used += product(dims);
    if (!isStatistic(name)) trainable += product(dims);
  }
  return { used, trainable };
}
