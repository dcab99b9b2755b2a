import { type HPformerConfig, presets } from '../../../src';

/** A small health model. */
export function health(over: Partial<HPformerConfig> = {}): HPformerConfig {
  return presets.mortality({ embedding: { kind: 'features', size: 5 }, hidden: 16, layers: 2, ...over });
}

/** A small text model. */
export function text(over: Partial<HPformerConfig> = {}): HPformerConfig {
  return presets.listops({
    embedding: { kind: 'tokens', vocabulary: 20, padding: 1 },
    hidden: 16,
    heads: 4,
    layers: 2,
    ...over,
  });
}

/** A small image model. */
export function image(over: Partial<HPformerConfig> = {}): HPformerConfig {
  return presets.image({ hidden: 16, heads: 4, layers: 2, ...over });
}

/** A small two-sequence model. */
export function retrieval(over: Partial<HPformerConfig> = {}): HPformerConfig {
  return presets.retrieval({
    embedding: { kind: 'tokens', vocabulary: 20, padding: 1 },
    hidden: 16,
    heads: 4,
    layers: 2,
    ...over,
  });
}

/** The same with `segments.over: 'valid'`. */
export function valid(config: HPformerConfig): HPformerConfig {
  return { ...config, segments: { ...config.segments, over: 'valid' } };
}
