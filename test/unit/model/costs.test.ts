/** The costs that graph and plan state, against sums written out by hand for sizes small enough to count. */
import { type HPformerConfig, presets } from '../../../src';
import { buildGraph, layerRowFlops } from '../../../src/model/graph';
import { buildPlan, type PlanContext } from '../../../src/model/plan';
import { type RewriteName, rewriteNames } from '../../../src/model/types';
import { health, image, retrieval, text, valid } from './configs';

const all = 2 ** rewriteNames.length - 1;
const tile = { tokens: 24, sequences: 48 };
const cpu: PlanContext = { device: 'cpu', precision: 'float32', isa: 'avx2', tile, rewrites: all, threads: 0 };
/** Hidden width of every small configuration here. */
const d = 16;

const bit = (name: RewriteName) => 1 << rewriteNames.indexOf(name);
const plan = (config: HPformerConfig, shape: Parameters<typeof buildPlan>[1], context = cpu) =>
  buildPlan(config, shape, context);
const rewrite = (
  config: HPformerConfig,
  name: RewriteName,
  shape: Parameters<typeof buildPlan>[1] = { batch: 1, steps: 48 },
  context = cpu,
) => plan(config, shape, context).rewrites.find((r) => r.name === name)!;

describe('graph', () => {
  test('one row of a layer: scores and sum, softmax, two products, norms and activation', () => {
    expect(layerRowFlops(16, 8, 4)).toBe(2 * 4 * 16 + 2 * 4 * 16 + 3 * 4 * 8 + 2 * (2 * 16 * 16) + 20 * 16);
    expect(layerRowFlops(1, 1, 1)).toBe(31);
  });

  test.each<[string, HPformerConfig, number, number, number, number]>([
    // width of an input row, operations of an embedded row, its norm, parameters
    ['features', health(), 5, 2 * 5 * d + 2 * d, 0, 5 * d + d],
    ['tokens', text(), 1, 2 * d, 0, 20 * d],
    ['scalar', image({ embeddingNorm: false }), 1, 2 * d + 2 * d, 0, 2 * d],
    ['scalar with a norm', image(), 1, 2 * d + 2 * d, 8 * d, 2 * d + 2 * d],
    [
      'tokens with learned positions',
      text({ positions: { kind: 'learned', maximum: 60 } }),
      1,
      2 * d,
      0,
      20 * d + 62 * d,
    ],
  ])('embedding of %s', (_, config, width, perRow, norm, parameters) => {
    const embed = buildGraph(config).node('embed')!;
    expect(embed.dims(3, 48)).toEqual([3, 48, d]);
    expect(embed.flops(3, 48)).toBe(3 * 48 * (perRow + norm));
    expect(embed.parameterCount).toBe(parameters);
    expect(embed.bytes(3, 48)).toBe(4 * (3 * 48 * width + 3 * 48 * d + parameters));
  });

  test('TDHP: means, segment attention, sums of every padded step, fusion', () => {
    // 50 steps in ⌊ln 50⌋ + 1 = 4 segments would leave two over: 5 segments of 12, 10 zero rows.
    const config = text();
    const tdhp = buildGraph(config).node('tdhp')!;
    const [s, rows] = [5, 60];
    expect(tdhp.dims(2, 50)).toEqual([2, s, d]);
    const means = rows * d;
    const segments = 2 * (2 * s * s * d) + 3 * s * s;
    const within = 2 * (2 * rows * d) + 3 * rows;
    const fusion = 2 * s * (2 * d) * d;
    expect(tdhp.flops(2, 50)).toBe(2 * (means + segments + within + fusion));
    expect(tdhp.parameterCount).toBe(d * 2 * d + d);
    expect(tdhp.bytes(2, 50)).toBe(4 * (2 * 50 * d + 2 * s * d + tdhp.parameterCount));
  });

  test('a layer reads its rows and the keys', () => {
    const layer = buildGraph(text()).node('layer.1')!;
    expect(layer.flops(3, 48)).toBe(3 * 48 * layerRowFlops(d, 4, 4));
    // Two products, a bias, two layernorms.
    expect(layer.parameterCount).toBe(2 * d * d + d + 4 * d);
    expect(layer.bytes(3, 48)).toBe(4 * (3 * 48 * d + 3 * 4 * d + 3 * 48 * d + layer.parameterCount));
    expect(layer.parameters).toEqual([
      'layers.1.output.weight',
      'layers.1.norm1.weight',
      'layers.1.norm1.bias',
      'layers.1.feedForward.weight',
      'layers.1.feedForward.bias',
      'layers.1.norm2.weight',
      'layers.1.norm2.bias',
    ]);
  });

  test.each<[HPformerConfig['readout'], number[], number, number]>([
    ['step', [3, d], 3 * d, 0],
    ['mean', [3, d], 3 * 48 * d, 3 * (48 * d + d)],
    ['steps', [3, 48, d], 3 * 48 * d, 0],
  ])('readout %s', (readout, dims, elements, flops) => {
    const config = health({ readout });
    const graph = buildGraph(config);
    const node = graph.node('readout')!;
    const out = dims.reduce((a, b) => a * b);
    expect(node.dims(3, 48)).toEqual(dims);
    expect(node.flops(3, 48)).toBe(flops);
    expect(node.bytes(3, 48)).toBe(4 * (elements + out));
    expect(node.parameterCount).toBe(0);
    expect(graph.edges.at(-1)).toMatchObject(
      readout === 'steps'
        ? { kind: 'rows', name: 'encoded', from: 'readout', to: ['head'] }
        : { kind: 'pooled', name: 'pooled', from: 'readout', to: ['head'] },
    );
    const head = graph.node('head')!;
    const rows = readout === 'steps' ? 3 * 48 : 3;
    expect(head.dims(3, 48)).toEqual(readout === 'steps' ? [3, 48, 1] : [3, 1]);
    expect(head.flops(3, 48)).toBe(rows * (2 * d + 2));
    expect(head.bytes(3, 48)).toBe(4 * (rows * d + rows + d + 1));
  });

  test('head layers: a product, a bias and an activation each; two sequences are joined before them', () => {
    const base = retrieval();
    const head = { ...base.head, layers: [{ size: 7, activation: 'gelu' as const }], labels: 3 };
    const graph = buildGraph(retrieval({ head }));
    const node = graph.node('head')!;
    expect(node.flops(5, 48)).toBe(5 * (2 * 7 * (2 * d) + 2 * 7 + (2 * 3 * 7 + 2 * 3)));
    expect(node.bytes(5, 48)).toBe(4 * (5 * 2 * d + 5 * 3 + 7 * 2 * d + 7 + 3 * 7));
    expect(graph.edges.map(({ name }) => name)).toEqual([
      'keys',
      'embedded',
      'layer.0',
      'layer.1',
      'pooled',
      'second.keys',
      'second.embedded',
      'second.layer.0',
      'second.layer.1',
      'second.pooled',
    ]);
    expect(graph.edges.find(({ name }) => name === 'embedded')!.to).toEqual(['tdhp', 'layer.0']);
    expect(graph.edges.find(({ name }) => name === 'layer.0')!.to).toEqual(['layer.1']);
    expect(graph.edges.find(({ name }) => name === 'second.layer.1')!.to).toEqual(['second.readout']);
  });

  test('the shown length is one for which the rule and the positions have an answer', () => {
    const shown = (config: HPformerConfig) => Number(/^batch 1, steps (\d+)\n/.exec(String(buildGraph(config)))![1]);
    const fixed = (steps: number | null, over: 'padded' | 'valid' = 'padded', times = 1) =>
      text({ segments: { ...text().segments, steps, over, times } });
    expect(shown(fixed(null))).toBe(1024);
    expect(shown(fixed(50))).toBe(48);
    expect(shown(fixed(50, 'valid'))).toBe(50);
    expect(shown({ ...fixed(null), positions: { kind: 'learned', maximum: 1023 } })).toBe(128);
    expect(shown({ ...fixed(null), positions: { kind: 'learned', maximum: 128 } })).toBe(128);
    expect(shown({ ...fixed(null), positions: { kind: 'learned', maximum: 100 } })).toBe(16);
    expect(shown({ ...fixed(null), positions: { kind: 'learned', maximum: 9 } })).toBe(1);
    expect(shown({ ...fixed(504), positions: { kind: 'learned', maximum: 100 } })).toBe(98);
    // Four times ⌊ln T⌋ + 1 segments need at least 12 steps; none of 1024, 128 and 16 below a maximum of 13 is left.
    expect(shown({ ...fixed(null, 'padded', 4), positions: { kind: 'learned', maximum: 13 } })).toBe(12);
  });

  test('as text: aligned columns without blanks at the ends', () => {
    const lines = String(buildGraph(health())).split('\n');
    expect(lines[0]).toBe('batch 1, steps 48');
    expect(lines[1]).toMatch(/^embed {4}<- input {10}\[1, 48, 16\] +96 parameters +\d+ FLOPs +\d+ bytes$/);
    expect(lines[2]).toMatch(/^tdhp {5}<- embed {10}\[1, 4, 16\] /);
    expect(lines[3]).toMatch(/^layer\.0 {2}<- embed, tdhp /);
    expect(lines.at(-1)).toBe('keys [1, 4, 16]: tdhp -> layer.0, layer.1');
    for (const line of lines) expect(line).toBe(line.trimEnd());
    expect(buildGraph(health()).toMermaid().split('\n').slice(0, 4)).toEqual([
      'flowchart TD',
      '  embed["embed"]',
      '  tdhp["tdhp"]',
      '  layer_0["layer.0"]',
    ]);
    expect(buildGraph(health()).toMermaid()).toContain('\n  embed --> tdhp\n  embed --> layer_0\n');
    const { nodes, edges } = JSON.parse(JSON.stringify(buildGraph(health())));
    expect(nodes[0]).toMatchObject({ id: 'embed', dims: [1, 48, d], flops: 48 * (2 * 5 * d + 2 * d) });
    expect(edges[0]).toMatchObject({ kind: 'keys', dims: [1, 4, d] });
  });
});

describe('plan', () => {
  test('readout pruning: the layers of the rows that nobody reads', () => {
    const row = layerRowFlops(d, 8, 4);
    expect(rewrite(health(), 'readoutPruning', { batch: 3, steps: 48, rows: 5 })).toEqual({
      name: 'readoutPruning',
      enabled: true,
      applies: true,
      reason: 'the readout reads 5 of 48 steps',
      savedFlops: 3 * 43 * 2 * row,
      savedBytes: 3 * 43 * 2 * 2 * 4 * d,
    });
    expect(rewrite(health(), 'readoutPruning', { batch: 3, steps: 48, rows: 0 }).savedFlops).toBe(3 * 48 * 2 * row);
    expect(rewrite(health(), 'readoutPruning', { batch: 3, steps: 48, rows: 48 }).applies).toBe(false);
    expect(rewrite(health({ readout: 'steps' }), 'readoutPruning')).toMatchObject({
      applies: false,
      reason: 'the readout reads all 48 steps',
      savedFlops: 0,
    });
    const noPadding = text({ embedding: { kind: 'tokens', vocabulary: 20, padding: null } });
    expect(rewrite(text(), 'readoutPruning')).toMatchObject({ applies: true, savedFlops: 0, savedBytes: 0 });
    expect(rewrite(text(), 'readoutPruning').reason).toContain('padding tokens never enter');
    expect(rewrite(noPadding, 'readoutPruning').applies).toBe(false);
    expect(rewrite(image(), 'readoutPruning').applies).toBe(false);
    expect(rewrite(text({ readout: 'steps' }), 'readoutPruning').applies).toBe(false);
  });

  test('depth first: every row between layers stays, twice but once', () => {
    expect(rewrite(health({ readout: 'steps' }), 'depthFirst', { batch: 3, steps: 48 })).toMatchObject({
      savedFlops: 0,
      savedBytes: 3 * (2 * 2 - 1) * 48 * 4 * d,
    });
    expect(rewrite(health({ layers: 3 }), 'depthFirst', { batch: 3, steps: 48 }).savedBytes).toBe(3 * 5 * 4 * d);
    const without = { ...cpu, rewrites: all & ~bit('readoutPruning') };
    expect(rewrite(health(), 'depthFirst', { batch: 3, steps: 48 }, without).savedBytes).toBe(3 * 3 * 48 * 4 * d);
  });

  test('absorbed embedding: the plain TDHP on embedded rows against tables over features', () => {
    const [f, s, length] = [5, 4, 12];
    const cost = (steps: number, read: number) => {
      const embedRow = 2 * f * d + 2 * d;
      const plain = steps * embedRow + s * length * (5 * d + 3) + 4 * s * s * d + 4 * s * d * d;
      const tables = s * (2 * f * f + 4 * f * d + 4 * s * f);
      return plain - (steps * (7 * f + 2 * d + 3) + tables + read * embedRow);
    };
    expect(rewrite(health(), 'absorbedEmbedding', { batch: 2, steps: 48 })).toMatchObject({
      applies: true,
      savedFlops: 2 * cost(48, 1),
      savedBytes: 2 * 2 * 48 * 4 * d,
      reason: 'segment means, scores and sums come from 5 features; 1 of 48 steps are embedded',
    });
    const wide = health({ embedding: { kind: 'features', size: 300 }, readout: 'steps' });
    expect(rewrite(wide, 'absorbedEmbedding', { batch: 2, steps: 48 })).toMatchObject({ applies: true, savedFlops: 0 });
    // 2048 steps are the last for which the tables pay.
    expect(rewrite(health(), 'absorbedEmbedding', { batch: 1, steps: 2048 }).applies).toBe(true);
    expect(rewrite(health(), 'absorbedEmbedding', { batch: 1, steps: 2052 })).toMatchObject({
      applies: false,
      reason: 'its tables do not pay beyond 2048 steps',
    });
    const unfolded = { ...cpu, rewrites: all & ~bit('foldedWeights') };
    expect(rewrite(health(), 'absorbedEmbedding', { batch: 1, steps: 48 }, unfolded).reason).toContain('foldedWeights');
  });

  test('zero rows: scores, exponential and sums of each appended row', () => {
    expect(rewrite(text(), 'zeroRowsClosedForm', { batch: 3, steps: 50 })).toMatchObject({
      applies: true,
      reason: '10 appended zero rows add exp(-max) each',
      savedFlops: 3 * 10 * (5 * d + 3),
      savedBytes: 0,
    });
    expect(rewrite(text(), 'zeroRowsClosedForm')).toMatchObject({ applies: true, savedFlops: 0 });
    expect(rewrite(valid(image()), 'zeroRowsClosedForm')).toMatchObject({ applies: true, savedFlops: 0 });
    expect(rewrite(image(), 'zeroRowsClosedForm')).toMatchObject({ applies: false, savedFlops: 0 });
  });

  test('token tables: scaled at load, unless a norm mixes token and position', () => {
    expect(rewrite(text(), 'tokenTables', { batch: 3, steps: 48 })).toMatchObject({
      applies: true,
      savedFlops: 3 * 48 * d,
      savedBytes: 0,
    });
    const reason = (config: HPformerConfig) => rewrite(config, 'tokenTables').reason;
    expect(reason(text({ embeddingNorm: true }))).toBe('the embedding norm mixes token and position');
    expect(reason(text({ embeddingNorm: true, positions: { kind: 'none' } }))).toContain('nothing linear');
    expect(reason(text({ positions: { kind: 'none' } }))).toContain('nothing linear');
    expect(reason(text({ positions: { kind: 'sinusoidal', layout: 'halves', scaleInput: false } }))).toContain(
      'nothing linear',
    );
    expect(reason(health())).toBe('the embedding is not a table');
  });

  test('folded output: S sums and a product of each row against S x heads tables', () => {
    const config = text({ heads: 1 });
    const saved = 2 * d * (48 * (4 + d - 4 * 1) - 4 * d) * 2;
    expect(rewrite(config, 'foldedOutput', { batch: 3, steps: 48 })).toMatchObject({
      applies: true,
      savedFlops: 3 * saved,
      savedBytes: 0,
      reason: '4 segments x 1 heads are fewer operations than the output projection',
    });
    // 4 segments of 8 heads over 16 wide: more operations, whatever the rows.
    expect(rewrite(health(), 'foldedOutput')).toMatchObject({
      applies: false,
      savedFlops: 0,
      reason: '4 segments x 8 heads over 1 rows are no fewer operations',
    });
  });

  test('folded weights: a multiplication of each score, and the statistics of batchnorm', () => {
    expect(rewrite(text(), 'foldedWeights', { batch: 3, steps: 48 })).toMatchObject({
      savedFlops: 3 * 48 * 2 * 4 * 4,
      reason: 'the score scale is folded at load',
    });
    expect(rewrite(text({ norm: 'batchnorm' }), 'foldedWeights', { batch: 3, steps: 48 })).toMatchObject({
      savedFlops: 3 * (48 * 2 * 4 * 4 + 48 * 2 * 2 * 6 * d),
      reason: 'batchnorm and the score scale are folded at load',
    });
  });

  test('tiles and memory of a thread, by device', () => {
    const steps = health({ readout: 'steps' });
    const tiles = (config: HPformerConfig, shape: { batch: number; steps: number; rows?: number }, over: object) => {
      const { tiles: made, workspaceBytes } = plan(config, shape, { ...cpu, ...over });
      return [made.tokens, made.count, workspaceBytes];
    };
    const memory = (tile: number, heads: number, s: number, size = 4) =>
      size * (tile * (4 * d + s * heads) + s * d * 6 + s * s);
    const shape = { batch: 5, steps: 48 };
    expect(tiles(steps, shape, {})).toEqual([24, 5 * 2, memory(24, 8, 4)]);
    const wide = { tile: { tokens: 32, sequences: 64 } };
    expect(tiles(steps, shape, wide)).toEqual([32, 5 * 2, memory(32, 8, 4)]);
    expect(tiles(health(), { batch: 65, steps: 48 }, wide)).toEqual([64, 2, memory(64, 8, 4)]);
    expect(tiles(health(), shape, {})).toEqual([48, 1, memory(48, 8, 4)]);
    expect(tiles(health(), { batch: 49, steps: 48 }, {})[1]).toBe(2);
    expect(tiles(health(), { ...shape, rows: 2 }, {})).toEqual([24, 5, memory(24, 8, 4)]);
    expect(tiles(steps, shape, { device: 'cuda', isa: '', tile: { tokens: 16, sequences: 16 } })).toEqual([
      16,
      5 * 3,
      memory(16, 8, 4),
    ]);
    expect(tiles(steps, shape, { device: 'reference', tile: { tokens: 1, sequences: 1 } })).toEqual([
      1,
      5 * 48,
      memory(1, 8, 4, 8),
    ]);
    // The longer of two sequences sets the memory: 4 segments of 48 steps, 6 of 150 would be 5 + 1 with a rest.
    const two = plan(retrieval(), { batch: 2, steps: 48, steps2: 150 }, cpu);
    expect(two.workspaceBytes).toBe(memory(24, 4, Math.max(two.segments.count, two.segments2!.count)));
    expect(two.segments2!.count).toBeGreaterThan(two.segments.count);
    expect(two.tiles.count).toBe(2 * (2 + 7));
    expect(two.rows).toBe(48);
    expect(two.steps2).toBe(150);
  });

  test('sums: the plain costs are those of the nodes, the planned ones less by what is saved', () => {
    const made = plan(retrieval(), { batch: 3, steps: 50, steps2: 33 });
    const graph = buildGraph(retrieval());
    for (const node of made.nodes) {
      const steps = node.id.startsWith('second.') ? 33 : 50;
      const of = graph.node(node.id)!;
      expect(node).toEqual({
        id: node.id,
        dims: of.dims(3, steps),
        flops: of.flops(3, steps),
        bytes: of.bytes(3, steps),
      });
    }
    const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
    expect(made.unfused.flops).toBe(sum(made.nodes.map((n) => n.flops)));
    expect(made.unfused.bytes).toBe(sum(made.nodes.map((n) => n.bytes)));
    expect(made.flops).toBe(made.unfused.flops - sum(made.rewrites.map((r) => r.savedFlops)));
    expect(made.bytes).toBe(made.unfused.bytes - sum(made.rewrites.map((r) => r.savedBytes)));
    // Both sequences save: 10 zero rows of 50 steps, and 33 steps in 5 segments of 8 have 7.
    const zero = made.rewrites.find((r) => r.name === 'zeroRowsClosedForm')!;
    expect(zero.savedFlops).toBe(3 * (10 + made.segments2!.padding) * (5 * d + 3));
    expect(made.segments2!.padding).toBeGreaterThan(0);
    expect(plan(health(), { batch: 3, steps: 48 }).segments2).toBeNull();
    expect(plan(health(), { batch: 3, steps: 48 }).steps2).toBeNull();
  });

  test.each([
    [{ batch: 2147483648, steps: 48 }, 'batch: expected an integer from 1 to 2147483647'],
    [{ batch: 1, steps: 2147483648 }, 'steps: expected an integer from 1 to 2147483647'],
    [{ batch: 1, steps: 48, steps2: 0 }, 'steps2: expected an integer from 1'],
    [{ batch: 1, steps: 48, rows: -1 }, 'rows: expected an integer from 0 to 48, got -1'],
    ['text', 'plan: expected { batch, steps }, got "text"'],
  ])('the shape %p is refused', (shape, message) => {
    expect(() => buildPlan(health(), shape as never, cpu)).toThrow(message);
  });

  test('every row must be read where every row is: rows of another readout are refused', () => {
    expect(() => plan(health({ readout: 'steps' }), { batch: 1, steps: 48, rows: 47 })).toThrow(
      'rows: expected an integer from 48 to 48, got 47',
    );
    expect(plan(health(), { batch: 2147483647, steps: 48, rows: 0 }).rows).toBe(0);
  });

  test('as text and picture, figures with their units', () => {
    const lines = String(plan(presets.mortality(), { batch: 2, steps: 48 })).split('\n');
    const { unfused, flops, workspaceBytes } = plan(presets.mortality(), { batch: 2, steps: 48 });
    const mega = (value: number) => `${(value / 1e6).toPrecision(3)} M`;
    expect(lines[1]).toBe(
      `rows read per sequence: 1; tiles: 1 of 48 tokens; workspace per thread: ${(workspaceBytes / 1e3).toPrecision(3)} kB`,
    );
    expect(lines[2]).toMatch(new RegExp(`^plain: ${mega(unfused.flops)}FLOP, .*; planned: ${mega(flops)}FLOP, `));
    expect(lines[3]).toBe('');
    expect(lines[4]).toMatch(/^embed {4}\[2, 48, 128\] {2}1\.89 MFLOP +\d+ kB$/);
    expect(lines.find((line) => line.startsWith('readoutPruning '))).toMatch(
      /^readoutPruning {6}yes {2}-[\d.]+ MFLOP +-[\d.]+ [kM]B +the readout reads 1 of 48 steps$/,
    );
    expect(lines.find((line) => line.startsWith('tokenTables '))).toMatch(/ no +– +– +the embedding is not/);
    // Exactly a thousand changes the unit.
    const at = plan({ ...health(), hidden: d }, { batch: 1, steps: 48 });
    expect(String(Object.assign(Object.create(Object.getPrototypeOf(at)), at, { workspaceBytes: 1000 }))).toContain(
      'workspace per thread: 1.00 kB',
    );
    expect(String(Object.assign(Object.create(Object.getPrototypeOf(at)), at, { workspaceBytes: 999 }))).toContain(
      'workspace per thread: 999 B',
    );
    expect(String(Object.assign(Object.create(Object.getPrototypeOf(at)), at, { workspaceBytes: 4e18 }))).toContain(
      'workspace per thread: 4.00e+3 PB',
    );
    const two = plan(retrieval(), { batch: 4, steps: 33, steps2: 45 });
    expect(String(two)).toMatch(/\(\d+ zero rows\), second 45 steps in \d segments\n/);
    expect(two.toMermaid().split('\n').slice(-6)).toEqual([
      '  embed --> tdhp',
      '  tdhp ==>|K_comp| layer_0 & layer_1',
      '  embed --> layer_0 --> layer_1 --> readout --> head',
      '  second_embed --> second_tdhp',
      '  second_tdhp ==>|K_comp| second_layer_0 & second_layer_1',
      '  second_embed --> second_layer_0 --> second_layer_1 --> second_readout --> head',
    ]);
    const one = plan(health(), { batch: 1, steps: 48 });
    expect(one.toMermaid()).toContain('  embed["embed<br/>[1, 48, 16]<br/>9.22 kFLOP"]');
  });
});
