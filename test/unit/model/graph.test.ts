import { presets } from '../../../src';
import { parameterCount } from '../../../src/checkpoint/names';
import { buildGraph } from '../../../src/model/graph';
import { health, retrieval, text } from './configs';

test('the order of the computation, and one K_comp edge that fans out to all layers', () => {
  const graph = buildGraph(presets.mortality());
  const layers = Array.from({ length: 8 }, (_, i) => `layer.${i}`);
  expect(graph.nodes.map((node) => node.id)).toEqual(['embed', 'tdhp', ...layers, 'readout', 'head']);
  const keys = graph.edges.filter((edge) => edge.kind === 'keys');
  expect(keys).toHaveLength(1);
  expect(keys[0]).toMatchObject({ name: 'keys', from: 'tdhp', to: layers });
  expect(keys[0]!.dims(32, 48)).toEqual([32, 4, 128]);
  for (const layer of layers) expect(graph.node(layer)!.inputs[1]).toBe('tdhp');
  expect(graph.node('layer.3')!.inputs[0]).toBe('layer.2');
  expect(graph.node('nothing')).toBeUndefined();
});

test('two sequences: two key edges, parameters counted once, one head', () => {
  const graph = buildGraph(retrieval());
  const keys = graph.edges.filter((edge) => edge.kind === 'keys');
  expect(keys.map(({ from, to }) => [from, ...to])).toEqual([
    ['tdhp', 'layer.0', 'layer.1'],
    ['second.tdhp', 'second.layer.0', 'second.layer.1'],
  ]);
  expect(graph.node('second.layer.0')!.parameterCount).toBe(0);
  expect(graph.node('second.layer.0')!.parameters).toEqual(graph.node('layer.0')!.parameters);
  expect(graph.node('head')!.inputs).toEqual(['readout', 'second.readout']);
});

test.each(Object.entries(presets))('%s: the nodes hold every parameter once', (_, preset) => {
  const config = preset();
  const total = buildGraph(config).nodes.reduce((sum, node) => sum + node.parameterCount, 0);
  expect(total).toBe(parameterCount(config).used);
});

test('a rule that only long sequences satisfy is found soon', () => {
  const { segments } = text({});
  for (const [times, first] of [
    [1, 1024],
    [5000, 55000],
    [65536, 917504],
  ]) {
    const graph = buildGraph(text({ segments: { ...segments, rule: 'upstream', times: times!, steps: null } }));
    expect(`${graph}`).toMatch(new RegExp(`^batch 1, steps ${first}\n`));
  }
});

test('tied layers hold their parameters once', () => {
  const graph = buildGraph(text({ tiedLayers: true, layers: 3 }));
  expect(graph.node('layer.0')!.parameterCount).toBeGreaterThan(0);
  expect(graph.node('layer.2')!.parameterCount).toBe(0);
});

test('shapes and costs are functions of batch and length', () => {
  const graph = buildGraph(health());
  expect(graph.node('embed')!.dims(3, 48)).toEqual([3, 48, 16]);
  expect(graph.node('tdhp')!.dims(3, 48)).toEqual([3, 4, 16]);
  expect(graph.node('readout')!.dims(3, 48)).toEqual([3, 16]);
  expect(graph.node('head')!.dims(3, 48)).toEqual([3, 1]);
  for (const node of graph.nodes) {
    expect(node.flops(6, 48)).toBe(2 * node.flops(3, 48));
    expect(node.bytes(6, 48)).toBeGreaterThan(node.bytes(3, 48));
  }
  // 2·F·d for the map, d for its bias, d for positions.
  expect(graph.node('embed')!.flops(1, 48)).toBe(48 * (2 * 5 * 16 + 2 * 16));
  // Scores and sum over 4 segments, two 16x16 products, softmax of 8 heads, two norms with residuals and activation.
  expect(graph.node('layer.0')!.flops(1, 48)).toBe(48 * (4 * 4 * 16 + 3 * 4 * 8 + 4 * 16 * 16 + 20 * 16));
});

test('text, data and picture', () => {
  const graph = buildGraph(presets.mortality());
  expect(graph.toString()).toMatch(/batch 1, steps 48\nembed +<- input +\[1, 48, 128\] +9856 parameters/);
  expect(graph.toString()).toContain('keys [1, 4, 128]: tdhp -> layer.0, layer.1');
  const json = JSON.parse(JSON.stringify(graph)) as {
    nodes: { id: string; flops: number }[];
    edges: { kind: string }[];
  };
  expect(json.nodes).toHaveLength(12);
  expect(json.nodes.every((node) => node.flops >= 0)).toBe(true);
  expect(graph.toMermaid().match(/==>\|K_comp\|/g)).toHaveLength(8);
  expect(buildGraph(presets.listops()).toString()).toContain('steps 1024');
});
