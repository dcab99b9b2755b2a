import { type DeepPartial, mergeConfigs } from '../config/merge';
import type { HPformerConfig } from '../config/types';
import { familyOf } from '../config/validate';
import { HPformerError } from '../errors';
import type { NameFamily } from './upstream';

type Partial = DeepPartial<HPformerConfig>;
/** Shapes of the parameters that a file holds, by canonical name. */
type Shapes = ReadonlyMap<string, readonly number[]>;

function embeddingOf(shapes: Shapes, family: NameFamily): Partial['embedding'] {
  const weight = shapes.get('embedding.weight');
  if (!weight) return undefined;
  if (weight.length === 1) return { kind: 'scalar' };
  if (shapes.has('embedding.bias')) return { kind: 'features', size: weight[1] };
  // Fairseq dictionaries have <pad> as id 1 (reference 3.4); our own files say it in their metadata.
  return { kind: 'tokens', vocabulary: weight[0], ...(family === 'longRange' && { padding: 1 }) };
}

function positionsOf(
  shapes: Shapes,
  family: NameFamily,
  dead: readonly string[],
  padding: number | null | undefined,
): Partial['positions'] {
  const table = shapes.get('positions.weight');
  if (table) return { kind: 'learned', maximum: table[0]! - (typeof padding === 'number' ? padding + 1 : 0) };
  if (family === 'health') return { kind: 'sinusoidal', layout: 'interleaved', scaleInput: false };
  if (family === 'longRange' && dead.some((key) => key.endsWith('embed_positions._float_tensor'))) {
    return { kind: 'sinusoidal', layout: 'halves', scaleInput: true };
  }
  return undefined;
}

function normOf(shapes: Shapes, hidden: number | undefined): HPformerConfig['norm'] | undefined {
  const weight = shapes.get('layers.0.norm1.weight');
  if (!weight) return undefined;
  if (shapes.has('layers.0.norm1.mean')) return 'batchnorm';
  if (shapes.has('layers.0.norm1.bias')) return 'layernorm';
  return weight[0] === 1 && hidden !== 1 ? 'scalenorm' : 'rmsnorm';
}

/** Number of consecutive indices i from 0 for which `name(i)` is there. */
function countOf(shapes: Shapes, name: (i: number) => string): number {
  let count = 0;
  while (shapes.has(name(count))) count++;
  return count;
}

function headOf(shapes: Shapes, family: NameFamily): NonNullable<Partial['head']> {
  const labels = shapes.get('head.output.weight')?.[0];
  const sizes = Array.from(
    { length: countOf(shapes, (j) => `head.layers.${j}.weight`) },
    (_, j) => shapes.get(`head.layers.${j}.weight`)![0]!,
  );
  return {
    labels,
    bias: shapes.has('head.output.bias'),
    layers: sizes.map((size) => ({ size, activation: 'gelu' as const })),
    ...(family === 'longRange' && { link: 'softmax' as const }),
  };
}

/** Fairseq's training arguments, where a file keeps them: what keys and shapes cannot tell. */
function fromArgs(args: ReadonlyMap<unknown, unknown>): Partial {
  const integer = (name: string) => (Number.isSafeInteger(args.get(name)) ? (args.get(name) as number) : undefined);
  const string = (name: string) => (typeof args.get(name) === 'string' ? (args.get(name) as string) : undefined);
  return {
    heads: integer('encoder_attention_heads'),
    layers: integer('encoder_layers'),
    activation: string('activation_fn') as HPformerConfig['activation'] | undefined,
    segments: { times: integer('k_times') },
    ...(typeof args.get('tie_layer_weights') === 'boolean' && { tiedLayers: args.get('tie_layer_weights') as boolean }),
  };
}

/**
 * What a file's keys, shapes and (fairseq) arguments tell about its configuration, with the constants of the published
 * family where its names show the family: heads 8, relu and the interleaved table in the health code; mean readout,
 * softmax, padding id 1 and gelu in the classifier in the long-range code.
 *
 * @param known what options and the file's metadata say; some inferences depend on it.
 */
export function inferConfig(
  shapes: Shapes,
  family: NameFamily,
  dead: readonly string[],
  known: Partial,
  args?: ReadonlyMap<unknown, unknown>,
): Partial {
  const hidden = shapes.get('tdhp.fusion.weight')?.[0];
  const stored = countOf(shapes, (i) => `layers.${i}.output.weight`);
  const said = mergeConfigs(args && fromArgs(args), known) as Partial;
  const tied = stored === 1 && (said.tiedLayers === true || (typeof said.layers === 'number' && said.layers > 1));
  // One stored layer may be one layer, or many tied ones: only the health code cannot tie.
  const layers = stored > 1 || family === 'health' || (stored === 1 && said.tiedLayers === false) ? stored : undefined;
  const embedding = mergeConfigs({ embedding: embeddingOf(shapes, family) }, { embedding: known.embedding })
    .embedding as Partial['embedding'];
  const padding = embedding && 'padding' in embedding ? embedding.padding : undefined;
  const head = headOf(shapes, family);
  const headInput = (shapes.get('head.layers.0.weight') ?? shapes.get('head.output.weight'))?.[1];
  const readout = family === 'longRange' ? ('mean' as const) : undefined;
  if (family === 'health' && (known.readout === 'step' || head.labels === 1)) head.link = 'sigmoid';
  const inferred: Partial = {
    embedding,
    positions: positionsOf(shapes, family, dead, padding),
    embeddingNorm: shapes.has('embeddingNorm.weight'),
    hidden,
    layers: tied ? undefined : layers,
    tiedLayers: tied,
    norm: normOf(shapes, hidden),
    readout,
    sequences: hidden !== undefined && headInput === 2 * hidden ? 2 : 1,
    head,
    ...(family === 'health' && {
      heads: 8,
      activation: 'relu' as const,
      segments: { times: 1, pooling: 'mean' as const },
    }),
  };
  return mergeConfigs(inferred, args && fromArgs(args)) as Partial;
}

/** Keys that may have a default when a configuration is written by hand, but not when weights trained with another value would silently be run with it. */
const mustBeKnown: [path: string, values: string, only?: 'features'][] = [
  ['heads', 'the number of attention heads'],
  ['layers', 'how often the one stored layer is used, with tiedLayers if more than once'],
  ['activation', 'relu, silu, gelu, gelu_tanh or linear'],
  ['positions', 'kind sinusoidal, learned or none'],
  ['segments.pooling', 'mean or max'],
  ['segments.steps', 'the n_steps of training, or null', 'features'],
  ['readout', 'steps, step or mean', 'features'],
  ['head.link', 'sigmoid, softmax or none', 'features'],
];

function valueAt(config: Record<string, unknown>, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], config);
}

/**
 * Refuses a merged configuration in which something is still open that no checkpoint can tell.
 * @throws HPformerError `ERR_HPFORMER_CONFIG` naming every such key.
 */
export function checkKnown(config: Record<string, unknown>, where: string): void {
  const family = familyOf(config);
  const open = mustBeKnown.filter(
    ([path, , only]) => (only === undefined || family === 'health') && valueAt(config, path) === undefined,
  );
  if (open.length === 0) return;
  const list = open.map(([path, values]) => `${path} (${values})`).join(', ');
  throw new HPformerError(
    'ERR_HPFORMER_CONFIG',
    `${where}: its names and shapes cannot tell ${list}: give them in options.config (convert, inspect: --config)`,
  );
}
