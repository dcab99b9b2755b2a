import { parameterShapes } from '../checkpoint/names';
import { isCuttable, segmentsOf } from '../config/segments';
import type { HPformerConfig } from '../config/types';
import { align } from './align';

/** What a node of the graph does. */
export type GraphNodeKind = 'embed' | 'tdhp' | 'layer' | 'readout' | 'head';

/** A tensor on its way between nodes; its kind keeps rows, keys and pooled vectors apart at compile time. */
export interface GraphEdge<Kind extends 'rows' | 'keys' | 'pooled' = 'rows' | 'keys' | 'pooled'> {
  readonly kind: Kind;
  /** Name of the tensor, as `trace` has it. */
  readonly name: string;
  readonly from: string;
  /** Every node that reads it; the one keys edge of a sequence lists all layers. */
  readonly to: readonly string[];
  /** Dims for B sequences of L steps. */
  dims(batch: number, steps: number): number[];
}

/** One node. Costs are those of the plain, unfused computation in float32; `plan` says what is saved. */
export interface GraphNode {
  readonly id: string;
  readonly kind: GraphNodeKind;
  /** `''` or `second.`: which sequence it belongs to. The head belongs to the first. */
  readonly sequence: '' | 'second.';
  /** Ids of the nodes whose results it reads. */
  readonly inputs: readonly string[];
  /** Names of its parameters; the second sequence and tied layers share theirs with the first. */
  readonly parameters: readonly string[];
  /** Number of its parameters, 0 where they are shared with an earlier node. */
  readonly parameterCount: number;
  /** Dims of its result for B sequences of L steps. */
  dims(batch: number, steps: number): number[];
  /** Floating-point operations; a multiply-add counts two, an exponential one. */
  flops(batch: number, steps: number): number;
  /** Bytes read and written when every node goes through memory, parameters once. */
  bytes(batch: number, steps: number): number;
}

/** The compiled graph of a model. */
export interface ModelGraph {
  readonly nodes: readonly GraphNode[];
  readonly edges: readonly GraphEdge[];
  /** The node of this id. */
  node(id: string): GraphNode | undefined;
  /** The graph as indented text. */
  toString(): string;
  /** Nodes and edges as plain data, for B = 1 and L = `steps`. */
  toJSON(): { nodes: unknown[]; edges: unknown[] };
  /** The graph as a Mermaid flow chart. */
  toMermaid(): string;
}

/** Everything that a layer may read: rows of its own sequence and that sequence's one keys edge. */
interface LayerInputs {
  rows: GraphEdge<'rows'>;
  keys: GraphEdge<'keys'>;
}

type Sizes = (batch: number, steps: number) => number;

/** FLOPs of one row through one layer with S segments: scores and sum, two products, two norms, activation. */
export function layerRowFlops(hidden: number, heads: number, segments: number): number {
  return 4 * segments * hidden + 3 * segments * heads + 4 * hidden * hidden + 20 * hidden;
}

/** Compiles a validated configuration. */
export function buildGraph(config: HPformerConfig): ModelGraph {
  const { hidden: d, heads, layers, embedding } = config;
  const shapes = parameterShapes(config);
  const sizeOf = (name: string) => (shapes.get(name) ?? []).reduce((a, b) => a * b, 1);
  const named = (prefix: string) => [...shapes.keys()].filter((name) => name.startsWith(prefix));
  const counted = new Set<string>();
  const nodes: GraphNode[] = [];
  const edges: GraphEdge[] = [];

  const add = (node: Omit<GraphNode, 'parameterCount' | 'bytes'> & { inputElements: Sizes }): GraphNode => {
    const { inputElements, ...rest } = node;
    const total = node.parameters.reduce((sum, name) => sum + sizeOf(name), 0);
    const fresh = node.parameters.filter((name) => !counted.has(name));
    for (const name of fresh) counted.add(name);
    const made: GraphNode = {
      ...rest,
      parameterCount: fresh.reduce((sum, name) => sum + sizeOf(name), 0),
      bytes: (batch, steps) => 4 * (inputElements(batch, steps) + product(node.dims(batch, steps)) + total),
    };
    nodes.push(made);
    return made;
  };
  const connect = <K extends 'rows' | 'keys' | 'pooled'>(
    kind: K,
    name: string,
    from: GraphNode,
    to: string[],
  ): GraphEdge<K> => {
    const edge: GraphEdge<K> = { kind, name, from: from.id, to, dims: from.dims };
    edges.push(edge as GraphEdge);
    return edge;
  };

  const rows = (batch: number, steps: number) => [batch, steps, d];
  const encode = (sequence: '' | 'second.'): GraphEdge<'pooled' | 'rows'> => {
    const width = embedding.kind === 'features' ? embedding.size : 1;
    const norm = config.embeddingNorm ? 8 * d : 0;
    const perRow = embedding.kind === 'tokens' ? 2 * d : 2 * width * d + 2 * d;
    const embed = add({
      id: `${sequence}embed`,
      kind: 'embed',
      sequence,
      inputs: [],
      parameters: [...named('embedding.'), ...named('positions.'), ...named('embeddingNorm.')],
      dims: rows,
      inputElements: (b, l) => b * l * width,
      flops: (b, l) => b * l * (perRow + norm),
    });
    const tdhp = add({
      id: `${sequence}tdhp`,
      kind: 'tdhp',
      sequence,
      inputs: [embed.id],
      parameters: named('tdhp.'),
      dims: (b, l) => [b, segmentsOf(config, l).count, d],
      inputElements: (b, l) => b * l * d,
      flops: (b, l) => {
        const { count: s, length } = segmentsOf(config, l);
        const padded = s * length;
        return b * (padded * d + 4 * s * s * d + 3 * s * s + 4 * padded * d + 3 * padded + 4 * s * d * d);
      },
    });
    const layerIds = Array.from({ length: layers }, (_, i) => `${sequence}layer.${i}`);
    const keys = connect('keys', `${sequence}keys`, tdhp, layerIds);

    const addLayer = (i: number, inputs: LayerInputs): GraphNode =>
      add({
        id: layerIds[i]!,
        kind: 'layer',
        sequence,
        inputs: [inputs.rows.from, inputs.keys.from],
        parameters: named(`layers.${config.tiedLayers ? 0 : i}.`),
        dims: rows,
        inputElements: (b, l) => b * l * d + product(inputs.keys.dims(b, l)),
        flops: (b, l) => b * l * layerRowFlops(d, heads, segmentsOf(config, l).count),
      });
    let current = connect('rows', `${sequence}embedded`, embed, [tdhp.id, layerIds[0]!]);
    for (let i = 0; i < layers; i++) {
      const layer = addLayer(i, { rows: current, keys });
      current = connect('rows', `${sequence}layer.${i}`, layer, [layerIds[i + 1] ?? `${sequence}readout`]);
    }
    const all = config.readout === 'steps';
    const readout = add({
      id: `${sequence}readout`,
      kind: 'readout',
      sequence,
      inputs: [current.from],
      parameters: [],
      dims: all ? rows : (b) => [b, d],
      inputElements: (b, l) => (config.readout === 'step' ? b * d : b * l * d),
      flops: (b, l) => (config.readout === 'mean' ? b * (l * d + d) : 0),
    });
    return connect(all ? 'rows' : 'pooled', all ? 'encoded' : `${sequence}pooled`, readout, ['head']);
  };

  const pooled = [encode('')];
  if (config.sequences === 2) pooled.push(encode('second.'));
  const headRows: Sizes = (b, l) => (config.readout === 'steps' ? b * l : b);
  const widths = [d * config.sequences, ...config.head.layers.map(({ size }) => size), config.head.labels];
  const perRow = widths.slice(1).reduce((sum, width, j) => sum + 2 * width * widths[j]! + 2 * width, 0);
  add({
    id: 'head',
    kind: 'head',
    sequence: '',
    inputs: pooled.map((edge) => edge.from),
    parameters: named('head.'),
    dims: (b, l) => (config.readout === 'steps' ? [b, l, config.head.labels] : [b, config.head.labels]),
    inputElements: (b, l) => headRows(b, l) * widths[0]!,
    flops: (b, l) => headRows(b, l) * perRow,
  });
  return new Graph(config, nodes, edges);
}

class Graph implements ModelGraph {
  readonly nodes: readonly GraphNode[];
  readonly edges: readonly GraphEdge[];
  readonly #sample: number;

  constructor(config: HPformerConfig, nodes: GraphNode[], edges: GraphEdge[]) {
    this.nodes = Object.freeze(nodes);
    this.edges = Object.freeze(edges);
    this.#sample = sampleSteps(config);
  }

  node(id: string): GraphNode | undefined {
    return this.nodes.find((node) => node.id === id);
  }

  toString(): string {
    const l = this.#sample;
    const cells = this.nodes.map((node) => [
      node.id,
      `<- ${node.inputs.join(', ') || 'input'}`,
      `[${node.dims(1, l).join(', ')}]`,
      `${node.parameterCount} parameters`,
      `${node.flops(1, l)} FLOPs`,
      `${node.bytes(1, l)} bytes`,
    ]);
    const lines = align(cells, [3, 4, 5]);
    const keys = this.edges.filter((edge) => edge.kind === 'keys');
    const shared = keys.map(
      (edge) => `${edge.name} [${edge.dims(1, l).join(', ')}]: ${edge.from} -> ${edge.to.join(', ')}`,
    );
    return [`batch 1, steps ${l}`, ...lines, ...shared].join('\n');
  }

  toJSON(): { nodes: unknown[]; edges: unknown[] } {
    const l = this.#sample;
    return {
      nodes: this.nodes.map(({ id, kind, sequence, inputs, parameters, parameterCount, ...f }) => ({
        ...{ id, kind, sequence, inputs, parameters, parameterCount },
        ...{ dims: f.dims(1, l), flops: f.flops(1, l), bytes: f.bytes(1, l) },
      })),
      edges: this.edges.map(({ kind, name, from, to, dims }) => ({ kind, name, from, to, dims: dims(1, l) })),
    };
  }

  toMermaid(): string {
    const id = (name: string) => name.replaceAll('.', '_');
    return [
      'flowchart TD',
      ...this.nodes.map((node) => `  ${id(node.id)}["${node.id}"]`),
      ...this.edges.flatMap((edge) =>
        edge.to.map((to) => `  ${id(edge.from)} ${edge.kind === 'keys' ? '==>|K_comp|' : '-->'} ${id(to)}`),
      ),
    ].join('\n');
  }
}

/** A length for which the rule has an answer, to show costs with. */
function sampleSteps(config: HPformerConfig): number {
  const { steps } = config.segments;
  const maximum = config.positions.kind === 'learned' ? config.positions.maximum : Number.MAX_SAFE_INTEGER;
  if (steps === null) {
    for (const l of [1024, 128, 16]) if (l <= maximum && isCuttable(config, l)) return l;
  }
  for (let l = Math.min(steps ?? 1, maximum); l >= 1; l--) if (isCuttable(config, l)) return l;
  let l = 1;
  while (!isCuttable(config, l) && l < maximum) l++;
  return l;
}

function product(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}
