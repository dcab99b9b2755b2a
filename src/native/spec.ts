import type { Activation, HPformerConfig } from '../config/types';
import type { NativeSpec } from './addon';

/** Enumerations in the order of binding/contract/spec.h. */
export const ordinals = {
  embedding: ['features', 'tokens', 'scalar'],
  positions: ['none', 'interleaved', 'halves', 'learned'],
  activation: ['linear', 'relu', 'silu', 'gelu', 'gelu_tanh'],
  norm: ['layernorm', 'batchnorm', 'scalenorm', 'rmsnorm'],
  rule: ['upstream', 'paper'],
  pooling: ['mean', 'max'],
  over: ['padded', 'valid'],
  readout: ['steps', 'step', 'mean'],
  link: ['none', 'sigmoid', 'softmax'],
} as const;

function ordinal(names: readonly string[], name: string): number {
  return names.indexOf(name);
}

/** The number of an activation in native calls. */
function activationOrdinal(activation: Activation): number {
  return ordinal(ordinals.activation, activation);
}

/** A validated configuration as native code reads it. */
export function nativeSpec(config: HPformerConfig): NativeSpec {
  const { embedding, positions, segments, head } = config;
  return {
    embedding: ordinal(ordinals.embedding, embedding.kind),
    features: embedding.kind === 'features' ? embedding.size : 0,
    vocabulary: embedding.kind === 'tokens' ? embedding.vocabulary : 0,
    padding: embedding.kind === 'tokens' ? (embedding.padding ?? -1) : -1,
    positions: ordinal(ordinals.positions, positions.kind === 'sinusoidal' ? positions.layout : positions.kind),
    scaleInput: positions.kind === 'sinusoidal' && positions.scaleInput,
    maximum: positions.kind === 'learned' ? positions.maximum : 0,
    embeddingNorm: config.embeddingNorm,
    hidden: config.hidden,
    heads: config.heads,
    layers: config.layers,
    tiedLayers: config.tiedLayers,
    activation: activationOrdinal(config.activation),
    norm: ordinal(ordinals.norm, config.norm),
    rule: ordinal(ordinals.rule, segments.rule),
    times: segments.times,
    pooling: ordinal(ordinals.pooling, segments.pooling),
    segmentSteps: segments.steps ?? 0,
    over: ordinal(ordinals.over, segments.over),
    readout: ordinal(ordinals.readout, config.readout),
    sequences: config.sequences,
    headLayers: head.layers.map(({ size, activation }) => ({ size, activation: activationOrdinal(activation) })),
    labels: head.labels,
    headBias: head.bias,
    link: ordinal(ordinals.link, head.link),
  };
}
