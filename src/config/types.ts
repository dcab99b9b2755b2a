/** Activation functions: of the layers and of the head's layers. `gelu` is the exact erf form. */
export type Activation = 'relu' | 'silu' | 'gelu' | 'gelu_tanh' | 'linear';

/** Configuration of an HPformer model, one schema for the health and the long-range families. */
export interface HPformerConfig {
  /** What a step is: a row of real features, a token id, or one real number (a pixel). */
  embedding:
    | { kind: 'features'; size: number }
    | { kind: 'tokens'; vocabulary: number; padding: number | null }
    | { kind: 'scalar' };
  /** Position encoding added to the embedding. `scaleInput` multiplies the embedding by √hidden first. */
  positions:
    | { kind: 'sinusoidal'; layout: 'interleaved' | 'halves'; scaleInput: boolean }
    | { kind: 'learned'; maximum: number }
    | { kind: 'none' };
  /** LayerNorm after positions. */
  embeddingNorm: boolean;
  /** Model width; `heads` divides it. */
  hidden: number;
  heads: number;
  layers: number;
  /** One set of layer weights used `layers` times. */
  tiedLayers: boolean;
  activation: Activation;
  norm: 'layernorm' | 'batchnorm' | 'scalenorm' | 'rmsnorm';
  segments: {
    rule: 'upstream' | 'paper';
    /** Multiple of the number of segments; 1 with rule `paper`. */
    times: number;
    pooling: 'mean' | 'max';
    /** A fixed T for the number of segments (health family), or null: the sequence's own length. */
    steps: number | null;
    /** `padded`: as published, depends on the padded length. `valid`: each sequence as if alone at its own length. */
    over: 'padded' | 'valid';
  };
  readout: 'steps' | 'step' | 'mean';
  /** 2: two sequences encoded with the same weights (retrieval); needs readout `mean`. */
  sequences: 1 | 2;
  head: {
    layers: { size: number; activation: Activation }[];
    labels: number;
    names?: string[];
    bias: boolean;
    link: 'sigmoid' | 'softmax' | 'none';
  };
}
