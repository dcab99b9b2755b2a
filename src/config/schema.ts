import type { HPformerConfig } from './types';

/**
 * The one table of the model configuration: validation, defaults, the JSON schema and the README's table all come from it,
 * and its inferred type is checked against {@link HPformerConfig} at the end of this file.
 */

/** Which defaults apply: `health` when steps are rows of features, `longRange` for tokens and scalars. */
export type Family = 'health' | 'longRange';

/** A default that differs by family; a family without one must give the key. */
export interface FamilyDefault {
  readonly health?: unknown;
  readonly longRange?: unknown;
}

interface Common {
  readonly doc: string;
  /** What an absent key becomes. A key with no default and not `optional` must be given. */
  readonly fallback?: { readonly value: unknown } | { readonly family: FamilyDefault };
  /** The key may be absent and then stays absent. */
  readonly optional?: true;
}

export type Field = Common &
  (
    | { readonly type: 'integer'; readonly minimum: number; readonly maximum: number; readonly nullable?: true }
    | { readonly type: 'boolean' }
    | { readonly type: 'string'; readonly maximumLength: number }
    | {
        readonly type: 'choice';
        readonly of: readonly (string | number)[];
        readonly spellings?: Readonly<Record<string, string>>;
      }
    | { readonly type: 'list'; readonly item: Field; readonly maximumLength: number }
    | { readonly type: 'object'; readonly fields: Readonly<Record<string, Field>> }
    | {
        readonly type: 'variant';
        readonly cases: Readonly<
          Record<string, { readonly doc: string; readonly fields: Readonly<Record<string, Field>> }>
        >;
      }
  );

/** Upper bounds keep every product of two sizes far below 2^53 and every index in an int32. */
const widthLimit = 65536;
const indexLimit = 2 ** 31 - 2;

const activation = {
  type: 'choice',
  of: ['relu', 'silu', 'gelu', 'gelu_tanh', 'linear'],
  spellings: { gelu_accurate: 'gelu_tanh', gelu_fast: 'gelu_tanh' },
} as const;

export const configSchema = {
  type: 'object',
  doc: 'Configuration of an HPformer model.',
  fields: {
    embedding: {
      type: 'variant',
      doc: 'What a step is.',
      cases: {
        features: {
          doc: 'A row of real numbers, mapped linearly (health family).',
          fields: { size: { type: 'integer', minimum: 1, maximum: 2 ** 24, doc: 'Numbers in a row.' } },
        },
        tokens: {
          doc: 'A token id, looked up in a table.',
          fields: {
            vocabulary: {
              type: 'integer',
              minimum: 1,
              maximum: indexLimit,
              doc: 'Rows of the table; ids are below it.',
            },
            padding: {
              type: 'integer',
              minimum: 0,
              maximum: indexLimit,
              nullable: true,
              fallback: { value: null },
              doc: 'Id of padding (zero rows, skipped by positions), below `vocabulary`, or null for none. Upstream: 1.',
            },
          },
        },
        scalar: { doc: 'One real number, such as a pixel already normalised.', fields: {} },
      },
    },
    positions: {
      type: 'variant',
      doc: 'Position encoding added to the embedding.',
      fallback: { family: { health: { kind: 'sinusoidal' }, longRange: { kind: 'sinusoidal' } } },
      cases: {
        sinusoidal: {
          doc: 'Sines and cosines; no parameters, no longest length.',
          fields: {
            layout: {
              type: 'choice',
              of: ['interleaved', 'halves'],
              fallback: { family: { health: 'interleaved', longRange: 'halves' } },
              doc: 'Sine and cosine in turn (health), or all sines and then all cosines (long-range; needs hidden >= 4).',
            },
            scaleInput: {
              type: 'boolean',
              fallback: { family: { health: false, longRange: true } },
              doc: 'Multiply the embedding by the square root of `hidden` first.',
            },
          },
        },
        learned: {
          doc: 'A table of trained rows.',
          fields: { maximum: { type: 'integer', minimum: 1, maximum: indexLimit, doc: 'Longest sequence.' } },
        },
        none: { doc: 'No positions.', fields: {} },
      },
    },
    embeddingNorm: {
      type: 'boolean',
      fallback: { value: false },
      doc: 'LayerNorm after positions (upstream `encoder_normalize_before`), whatever `norm` is.',
    },
    hidden: { type: 'integer', minimum: 1, maximum: widthLimit, doc: 'Model width.' },
    heads: {
      type: 'integer',
      minimum: 1,
      maximum: widthLimit,
      doc: 'Attention heads of a layer; they divide `hidden`. Health: 8.',
    },
    layers: { type: 'integer', minimum: 1, maximum: 4096, doc: 'Number of HPformer layers.' },
    tiedLayers: { type: 'boolean', fallback: { value: false }, doc: 'One set of layer weights used `layers` times.' },
    activation: {
      ...activation,
      fallback: { family: { health: 'relu' } },
      doc: 'Activation of the layers; `gelu` is the exact erf form. Also read: gelu_accurate, gelu_fast (= gelu_tanh).',
    },
    norm: {
      type: 'choice',
      of: ['layernorm', 'batchnorm', 'scalenorm', 'rmsnorm'],
      spellings: { syncbatchnorm: 'batchnorm' },
      fallback: { value: 'layernorm' },
      doc: 'Norms of the layers, epsilon 1e-5. Also read: syncbatchnorm (= batchnorm).',
    },
    segments: {
      type: 'object',
      doc: 'How a sequence is cut into segments.',
      fallback: { value: {} },
      fields: {
        rule: {
          type: 'choice',
          of: ['upstream', 'paper'],
          fallback: { value: 'upstream' },
          doc: "Number of segments: the published code's, or the paper's.",
        },
        times: {
          type: 'integer',
          minimum: 1,
          maximum: 65536,
          fallback: { value: 1 },
          doc: 'Multiple of the number of segments (upstream `k_times`); 1 with rule `paper`.',
        },
        pooling: { type: 'choice', of: ['mean', 'max'], fallback: { value: 'mean' }, doc: 'How a segment is pooled.' },
        steps: {
          type: 'integer',
          minimum: 1,
          maximum: indexLimit,
          nullable: true,
          fallback: { value: null },
          doc: 'A fixed length that sets the number of segments (health `n_steps`), or null: the length at hand.',
        },
        over: {
          type: 'choice',
          of: ['padded', 'valid'],
          fallback: { value: 'padded' },
          doc: 'Segment the padded batch length, as published, or each sequence as if alone at its own length.',
        },
      },
    },
    readout: {
      type: 'choice',
      of: ['steps', 'step', 'mean'],
      fallback: { family: { longRange: 'mean' } },
      doc: 'What the head reads: every step; one step or a weighted sum; the mean over the length.',
    },
    sequences: {
      type: 'choice',
      of: [1, 2],
      fallback: { value: 1 },
      doc: '2: two sequences, one encoder (retrieval); needs readout `mean` and tokens or scalars.',
    },
    head: {
      type: 'object',
      doc: 'From the readout to the labels.',
      fields: {
        layers: {
          type: 'list',
          maximumLength: 64,
          fallback: { value: [] },
          doc: 'Linear layers with activations before the output.',
          item: {
            type: 'object',
            doc: 'One linear layer.',
            fields: {
              size: { type: 'integer', minimum: 1, maximum: widthLimit, doc: 'Width.' },
              activation: { ...activation, fallback: { value: 'gelu' }, doc: 'Activation.' },
            },
          },
        },
        labels: { type: 'integer', minimum: 1, maximum: 2 ** 24, doc: 'Number of outputs.' },
        names: {
          type: 'list',
          maximumLength: 2 ** 24,
          optional: true,
          item: { type: 'string', maximumLength: 200, doc: 'A label.' },
          doc: 'Distinct names of the labels, one each.',
        },
        bias: {
          type: 'boolean',
          fallback: { family: { health: true, longRange: false } },
          doc: 'Whether the output has a bias.',
        },
        link: {
          type: 'choice',
          of: ['sigmoid', 'softmax', 'none'],
          fallback: { family: { longRange: 'softmax' } },
          doc: 'Logits to probabilities; softmax runs over the labels.',
        },
      },
    },
  },
} as const satisfies Field;

type Fields<T> = { -readonly [K in keyof T as T[K] extends { optional: true } ? never : K]: Infer<T[K]> } & {
  -readonly [K in keyof T as T[K] extends { optional: true } ? K : never]?: Infer<T[K]>;
};
type Flat<T> = T extends object ? { [K in keyof T]: T[K] } : T;
type Nullable<T, V> = T extends { nullable: true } ? V | null : V;

/** The TypeScript type of what a field describes. */
export type Infer<T> = T extends { type: 'integer' }
  ? Nullable<T, number>
  : T extends { type: 'boolean' }
    ? boolean
    : T extends { type: 'string' }
      ? string
      : T extends { type: 'choice'; of: readonly (infer V)[] }
        ? V
        : T extends { type: 'list'; item: infer I }
          ? Infer<I>[]
          : T extends { type: 'object'; fields: infer F }
            ? Flat<Fields<F>>
            : T extends { type: 'variant'; cases: infer C }
              ? { [K in keyof C]: C[K] extends { fields: infer F } ? Flat<{ kind: K } & Fields<F>> : never }[keyof C]
              : never;

type Mutual<A, B> = [A] extends [B] ? ([B] extends [A] ? true : never) : never;
/** Compiles only while the table and the documented interface describe the same thing. */
export const schemaMatchesTypes: Mutual<Infer<typeof configSchema>, HPformerConfig> = true;
