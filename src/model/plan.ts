import { type Segments, segmentsToRead } from '../config/segments';
import type { HPformerConfig } from '../config/types';
import { align } from './align';
import { buildGraph, layerRowFlops } from './graph';
import { checkInteger, checkShape } from './options';
import { type PlanShape, type Precision, type RewriteName, rewriteNames } from './types';

/** One exact rewrite: whether it is used for this shape, why, and what it saves for the whole batch. */
export interface PlanRewrite {
  name: RewriteName;
  /** The load option `rewrites` allows it. */
  enabled: boolean;
  /** It is used. */
  applies: boolean;
  reason: string;
  savedFlops: number;
  savedBytes: number;
}

/** One node of the graph, at this shape, before any rewrite. */
export interface PlanNode {
  id: string;
  dims: number[];
  flops: number;
  bytes: number;
}

/** A plan as plain data. */
export interface PlanJSON {
  device: string;
  precision: Precision | 'float64';
  /** Instruction set level of the CPU kernels; empty elsewhere. */
  isa: string;
  batch: number;
  steps: number;
  steps2: number | null;
  /** Steps of a sequence that the readout reads. */
  rows: number;
  /** The cut of the sequence, and of the second one. */
  segments: Segments;
  segments2: Segments | null;
  /** Tokens of one tile, tiles of the batch, threads of a run (0: the machine's default). */
  tiles: { tokens: number; count: number; threads: number };
  nodes: PlanNode[];
  rewrites: PlanRewrite[];
  /** Without any rewrite. */
  unfused: { flops: number; bytes: number };
  /** With the rewrites that apply. */
  flops: number;
  bytes: number;
  /** Memory of one thread beside inputs, outputs and weights. */
  workspaceBytes: number;
}

/** What will be done for one input shape, and what it costs. */
export class Plan implements PlanJSON {
  readonly device!: string;
  readonly precision!: Precision | 'float64';
  readonly isa!: string;
  readonly batch!: number;
  readonly steps!: number;
  readonly steps2!: number | null;
  readonly rows!: number;
  readonly segments!: Segments;
  readonly segments2!: Segments | null;
  readonly tiles!: PlanJSON['tiles'];
  readonly nodes!: PlanNode[];
  readonly rewrites!: PlanRewrite[];
  readonly unfused!: PlanJSON['unfused'];
  readonly flops!: number;
  readonly bytes!: number;
  readonly workspaceBytes!: number;

  /** @internal */
  constructor(data: PlanJSON) {
    Object.assign(this, data);
  }

  /** A deep copy as plain data. */
  toJSON(): PlanJSON {
    return structuredClone({ ...this }) as PlanJSON;
  }

  /** Aligned text for people. */
  toString(): string {
    const { segments: s, tiles } = this;
    const second = this.segments2 ? `, second ${this.steps2} steps in ${this.segments2.count} segments` : '';
    const head = [
      `${this.device}, ${this.precision}: batch ${this.batch}, ${this.steps} steps in ${s.count} segments of ${s.length} (${s.padding} zero rows)${second}`,
      `rows read per sequence: ${this.rows}; tiles: ${tiles.count} of ${tiles.tokens} tokens; workspace per thread: ${quantity(this.workspaceBytes)}B`,
      `plain: ${quantity(this.unfused.flops)}FLOP, ${quantity(this.unfused.bytes)}B; planned: ${quantity(this.flops)}FLOP, ${quantity(this.bytes)}B`,
    ];
    const nodes = this.nodes.map((n) => [
      n.id,
      `[${n.dims.join(', ')}]`,
      `${quantity(n.flops)}FLOP`,
      `${quantity(n.bytes)}B`,
    ]);
    const saved = (value: number, unit: string) => (value === 0 ? '–' : `-${quantity(value)}${unit}`);
    const rewrites = this.rewrites.map((r) => [
      r.name,
      r.applies ? 'yes' : 'no',
      saved(r.savedFlops, 'FLOP'),
      saved(r.savedBytes, 'B'),
      r.reason,
    ]);
    return [...head, '', ...align(nodes, [2, 3]), '', ...align(rewrites, [2, 3])].join('\n');
  }

  /** A flowchart of the nodes with their costs; K_comp drawn as the one thick edge per sequence. */
  toMermaid(): string {
    const id = (name: string) => name.replaceAll('.', '_');
    const lines = ['flowchart TD'];
    for (const node of this.nodes) {
      lines.push(`  ${id(node.id)}["${node.id}<br/>[${node.dims.join(', ')}]<br/>${quantity(node.flops)}FLOP"]`);
    }
    const of = (prefix: string) => this.nodes.filter((n) => n.id.startsWith(`${prefix}layer.`)).map((n) => n.id);
    for (const prefix of this.segments2 ? ['', 'second.'] : ['']) {
      const layers = of(prefix);
      lines.push(`  ${id(`${prefix}embed`)} --> ${id(`${prefix}tdhp`)}`);
      lines.push(`  ${id(`${prefix}tdhp`)} ==>|K_comp| ${layers.map(id).join(' & ')}`);
      lines.push(`  ${[`${prefix}embed`, ...layers, `${prefix}readout`, 'head'].map(id).join(' --> ')}`);
    }
    return lines.join('\n');
  }
}

/** How the plan is asked for. */
export interface PlanContext {
  device: string;
  precision: Precision | 'float64';
  /** Instruction set level in use; empty on other devices than the CPU. */
  isa: string;
  /** What goes through all layers together: tokens of one sequence, or sequences of which one step is read. */
  tile: { tokens: number; sequences: number };
  /** Bit i: rewriteNames[i] may be used. */
  rewrites: number;
  threads: number;
}

/** What the fused CUDA kernels are compiled for, and take (cuda/cuda.cmake, layout.h, params.h). */
const fusedWidths = [64, 96, 128, 160, 192, 256];
const fusedFeatures = 128;
const fusedSegments = 64;
const fusedHeadLayers = 6;

/** Beyond this length the tables of the absorbed embedding cost more than they save (binding/cpu/engine/tuning.h). */
const longestAbsorbed = 2048;

/**
 * Plans a batch. Whether a rewrite that changes rounding applies depends on the configuration, the sequence's own length,
 * the readout and the precision, never on the batch.
 * @throws HPformerError `ERR_HPFORMER_TYPE`, `_RANGE` for the shape, `_SHAPE` where the segment rule has no answer.
 */
export function buildPlan(config: HPformerConfig, shape: PlanShape, context: PlanContext): Plan {
  const { batch, steps, steps2 } = checkShape('plan', shape);
  const { rows = config.readout === 'step' ? 1 : steps } = shape;
  checkInteger('rows', rows, config.readout === 'step' ? 0 : steps, steps);
  const two = config.sequences === 2;
  const lengths = two ? [steps, steps2] : [steps];
  const cuts = lengths.map((length) => segmentsToRead(config, length));
  const nodes = buildGraph(config).nodes.map((node): PlanNode => {
    const length = node.sequence === 'second.' ? steps2 : steps;
    return {
      id: node.id,
      dims: node.dims(batch, length),
      flops: node.flops(batch, length),
      bytes: node.bytes(batch, length),
    };
  });
  const unfused = {
    flops: nodes.reduce((sum, node) => sum + node.flops, 0),
    bytes: nodes.reduce((sum, node) => sum + node.bytes, 0),
  };

  const sequences = lengths.map((length, i) => planSequence(config, length, two ? length : rows, cuts[i]!, context));
  const rewrites = rewriteNames.map((name, bit): PlanRewrite => {
    const enabled = ((context.rewrites >> bit) & 1) === 1 && context.device !== 'reference';
    const first = sequences[0]!.get(name)!;
    const each = sequences.map((rewritesOf) => rewritesOf.get(name)!).filter((r) => r.applies && enabled);
    const off = context.device === 'reference' ? 'the reference computes everything plainly' : 'switched off';
    return {
      name,
      enabled,
      applies: each.length > 0,
      reason: enabled ? first.reason : off,
      savedFlops: batch * each.reduce((sum, r) => sum + r.flops, 0),
      savedBytes: batch * each.reduce((sum, r) => sum + r.bytes, 0),
    };
  });
  const oneStep = config.readout === 'step' && rows === 1;
  const tokens = oneStep ? context.tile.sequences : context.tile.tokens;
  const perSequence = (two ? lengths : [rows]).reduce((sum, read) => sum + Math.ceil(read / tokens), 0);
  return new Plan({
    device: context.device,
    precision: context.precision,
    isa: context.isa,
    batch,
    steps,
    steps2: two ? steps2 : null,
    rows,
    segments: cuts[0]!,
    segments2: cuts[1] ?? null,
    tiles: { tokens, count: oneStep ? Math.ceil(batch / tokens) : batch * perSequence, threads: context.threads },
    nodes,
    rewrites,
    unfused,
    flops: unfused.flops - rewrites.reduce((sum, r) => sum + r.savedFlops, 0),
    bytes: unfused.bytes - rewrites.reduce((sum, r) => sum + r.savedBytes, 0),
    workspaceBytes: workspace(config, Math.max(...cuts.map((c) => c.count)), tokens, context),
  });
}

interface Saving {
  applies: boolean;
  reason: string;
  flops: number;
  bytes: number;
}

/** Savings for one sequence, each on top of those before it in the order of use. */
function planSequence(
  config: HPformerConfig,
  steps: number,
  rows: number,
  cut: Segments,
  context: PlanContext,
): Map<RewriteName, Saving> {
  const { hidden: d, heads, layers, embedding, positions } = config;
  const s = cut.count;
  const on = (name: RewriteName) => ((context.rewrites >> rewriteNames.indexOf(name)) & 1) === 1;
  const pruned = config.readout === 'step' && rows < steps;
  const read = pruned && on('readoutPruning') ? rows : steps;
  const rowBytes = 4 * d;
  const savings = new Map<RewriteName, Saving>();
  const no = (reason: string): Saving => ({ applies: false, reason, flops: 0, bytes: 0 });
  const yes = (reason: string, flops: number, bytes: number): Saving => ({ applies: true, reason, flops, bytes });

  const padding = embedding.kind === 'tokens' && embedding.padding !== null;
  savings.set(
    'readoutPruning',
    pruned
      ? yes(
          `the readout reads ${rows} of ${steps} steps`,
          (steps - rows) * layers * layerRowFlops(d, heads, s),
          (steps - rows) * layers * 2 * rowBytes,
        )
      : config.readout === 'mean' && padding
        ? yes('padding tokens never enter the layers (how many depends on the batch)', 0, 0)
        : no(`the readout reads all ${steps} steps`),
  );
  savings.set(
    'depthFirst',
    yes('a tile of tokens goes through all layers at once', 0, (2 * layers - 1) * read * rowBytes),
  );
  savings.set('absorbedEmbedding', absorbed(config, steps, read, cut, isCuda(context), on, yes, no));
  savings.set(
    'zeroRowsClosedForm',
    cut.padding > 0
      ? yes(`${cut.padding} appended zero rows add exp(-max) each`, cut.padding * (5 * d + 3), 0)
      : padding || config.segments.over === 'valid'
        ? yes('padding rows of the batch cost nothing', 0, 0)
        : no('the segments divide the length'),
  );

  const vocabulary = embedding.kind === 'tokens' ? embedding.vocabulary : 0;
  savings.set(
    'tokenTables',
    vocabulary === 0
      ? no('the embedding is not a table')
      : config.embeddingNorm && positions.kind !== 'none'
        ? no('the embedding norm mixes token and position')
        : positions.kind === 'sinusoidal' && positions.scaleInput
          ? yes('the table is scaled once at load', steps * d, 0)
          : no('nothing linear is left to do per token'),
  );

  // Per token: S sums of hidden and a hidden x hidden product, against one product with S * heads rows; M_g costs S * hidden^2.
  const folded = 2 * d * (read * (s + d - s * heads) - s * d) * layers;
  savings.set(
    'foldedOutput',
    folded > 0
      ? yes(`${s} segments x ${heads} heads are fewer operations than the output projection`, folded, 0)
      : no(`${s} segments x ${heads} heads over ${read} rows are no fewer operations`),
  );
  const scores = read * layers * s * heads;
  const norms = config.norm === 'batchnorm' ? read * layers * 2 * 6 * d : 0;
  savings.set(
    'foldedWeights',
    yes(
      norms > 0 ? 'batchnorm and the score scale are folded at load' : 'the score scale is folded at load',
      scores + norms,
      0,
    ),
  );
  if (isCuda(context)) {
    savings.set('foldedOutput', no('kernels of CUDA devices multiply by the output projection'));
    const features = embedding.kind === 'features' ? embedding.size : 0;
    const fits = features <= fusedFeatures && s <= fusedSegments && config.head.layers.length < fusedHeadLayers;
    const whole = on('depthFirst') && on('readoutPruning') && on('zeroRowsClosedForm');
    if (!whole || !fits || !fusedWidths.includes(d)) {
      const apart = no('without the fused kernel each step of the model is a kernel of its own');
      for (const name of ['readoutPruning', 'depthFirst', 'absorbedEmbedding', 'zeroRowsClosedForm'] as const)
        savings.set(name, apart);
    }
  }
  return savings;
}

const isCuda = ({ device }: PlanContext): boolean => device.startsWith('cuda');

/** Rewrite 3: TDHP on raw features with tables that depend on the length alone; only rows that are read are embedded. */
function absorbed(
  config: HPformerConfig,
  steps: number,
  read: number,
  cut: Segments,
  cuda: boolean,
  on: (name: RewriteName) => boolean,
  yes: (reason: string, flops: number, bytes: number) => Saving,
  no: (reason: string) => Saving,
): Saving {
  const { hidden: d, embedding } = config;
  if (embedding.kind !== 'features') return no('the embedding is not a linear map of features');
  if (config.embeddingNorm) return no('the embedding norm is not linear');
  if (config.segments.pooling === 'max') return no('max pooling is not linear');
  if (!cuda && steps > longestAbsorbed) return no(`its tables do not pay beyond ${longestAbsorbed} steps`);
  if (!cuda && !on('foldedWeights')) return no('its products are made at load, which foldedWeights switches off');
  const f = embedding.size;
  const s = cut.count;
  const embedRow = 2 * f * d + 2 * d;
  const plain = steps * embedRow + s * cut.length * (5 * d + 3) + 4 * s * s * d + 4 * s * d * d;
  const rewritten = steps * (7 * f + 2 * d + 3) + s * (2 * f * f + 4 * f * d + 4 * s * f) + read * embedRow;
  const reason = `segment means, scores and sums come from ${f} features; ${read} of ${steps} steps are embedded`;
  return yes(reason, Math.max(0, plain - rewritten), 2 * steps * 4 * d);
}

/** A tile's rows in and out of a layer, probabilities, keys in two layouts and TDHP's segment rows. */
function workspace(config: HPformerConfig, segments: number, tile: number, context: PlanContext): number {
  const { hidden: d, heads } = config;
  const size = context.device === 'reference' ? 8 : 4;
  return size * (tile * (4 * d + segments * heads) + segments * d * 6 + segments * segments);
}

function quantity(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${unit === 0 ? scaled : scaled.toPrecision(3)} ${units[unit]}`;
}
