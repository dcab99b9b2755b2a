/** `convert` to ONNX, reports of models with classes, and files that cannot be read or written. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { initialWeights } from '../../../src/checkpoint/init';
import { onnxNotes } from '../../../src/checkpoint/onnx';
import { serializeCheckpoint } from '../../../src/checkpoint/save';
import { classFigures, finishReport } from '../../../src/cli/report';
import { ScoreWriter } from '../../../src/cli/scoreFile';
import { presets } from '../../../src/config/presets';
import type { HPformerConfig } from '../../../src/config/types';
import { HPformerError } from '../../../src/errors';
import { decode } from '../onnx/interpreter';
import { hpformer } from './run';

let folder: string;
const at = (name: string) => path.join(folder, name);
const save = (name: string, config: HPformerConfig) => {
  fs.writeFileSync(at(name), serializeCheckpoint(config, initialWeights(config, 1)));
  return at(name);
};
const read = (name: string) => decode(new Uint8Array(fs.readFileSync(at(name))));
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpformer-convert-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

describe('convert to ONNX', () => {
  const config = presets.mortality({ layers: 1, hidden: 8, heads: 2, embedding: { size: 3 } });

  test('fixed and dynamic steps, every variant; the graph carries the configuration', async () => {
    const model = save('m.safetensors', config);
    const plain = await hpformer('convert', model, at('a.onnx'));
    expect([plain.code, plain.out]).toEqual([0, '']);
    expect(plain.err).toBe(`${at('a.onnx')}: ONNX graph, ${fs.statSync(at('a.onnx')).size} bytes\n`);
    expect(JSON.parse(read('a.onnx').metadata.get('hpformer.config')!)).toEqual(config);
    const small = ['--steps', 'dynamic', '--maximum-steps', '64', '--variant', 'written'];
    expect((await hpformer('convert', model, at('b.onnx'), ...small)).code).toBe(0);
    expect(fs.statSync(at('b.onnx')).size).toBeLessThan(fs.statSync(at('a.onnx')).size);
    const json = await hpformer('convert', model, at('c.onnx'), '--steps', '48', '--variant', 'fold', '--json');
    expect(JSON.parse(json.out)).toEqual({
      ...{ out: at('c.onnx'), bytes: fs.statSync(at('c.onnx')).size, format: 'onnx', steps: 48, variant: 'fold' },
      notes: [],
      config: JSON.parse(JSON.stringify(config)),
    });
    expect(read('c.onnx').metadata.get('hpformer.variant')).toBe('fold');
  });

  test.each<[string[], number, RegExp]>([
    [['x.onnx', '--steps', '0'], 2, /--steps: expected/],
    [['x.onnx', '--steps', 'some'], 2, /--steps: expected/],
    [['x.onnx', '--variant', 'none'], 2, /--variant: expected written, bdiag/],
    [['x.onnx', '--maximum-steps', '16777217'], 2, /--maximum-steps: expected/],
    [
      ['x.pt'],
      2,
      /expected an output name that ends in \.safetensors or \.onnx, or --to <format> with it, got ".*x\.pt"/,
    ],
    [['x'], 2, /expected an output name that ends in \.safetensors or \.onnx, or --to/],
    [['x.safetensors', '--to', 'onnx'], 2, /--to: expected onnx in a name that ends in \.onnx or says nothing, got/],
    [['x.onnx', '--to', 'safetensors'], 2, /--to: expected safetensors in a name that ends in \.safetensors or/],
    [['x.pt', '--to', 'safetensors'], 2, /--to: expected safetensors in a name/],
    [['x.pth', '--to', 'onnx'], 2, /--to: expected onnx in a name/],
    [['x', '--to', 'bin'], 2, /--to: expected safetensors, onnx, got "bin"/],
    [['x.onnx', '--steps', '4', '--maximum-steps', '8'], 2, /--maximum-steps: expected --steps dynamic with it, got 4/],
    [['m', '--to', 'onnx', '--bundle', 'x'], 2, /--bundle: expected an output in safetensors with it, got onnx/],
    [['m', '--to', 'safetensors', '--steps', '4'], 2, /--steps: expected an output in ONNX with it, got safetensors/],
    [['x.safetensors', '--bundle', 'none.json'], 1, /none\.json: cannot be read .*\(ERR_HPFORMER_FILE\)/],
    [['none/x.onnx', '--steps', '4'], 1, /x\.onnx.*\(ERR_HPFORMER_FILE\)/],
    // No ONNX file can be larger than 2 GiB: said before the tables are made.
    [['x.onnx', '--steps', '16777216'], 1, /steps: expected .* got 16777216 .*\(ERR_HPFORMER_LIMIT\)/],
  ])('%j ends with %d', async (args, code, message) => {
    const wide = presets.mortality({ layers: 1, hidden: 64, heads: 2, embedding: { size: 3 } });
    const model = save('m.safetensors', wide);
    const [target, ...options] = args;
    const got = await hpformer('convert', model, at(target!), ...options);
    expect(got.err).toMatch(message);
    expect([got.code, got.out]).toEqual([code, '']);
    expect(fs.readdirSync(folder)).toEqual(['m.safetensors']);
  });

  test('--to decides whatever else the name is', async () => {
    const model = save('m.safetensors', config);
    for (const [name, format] of [
      ['x', 'onnx'],
      ['y.bin', 'onnx'],
      ['z', 'safetensors'],
      ['v1.2', 'safetensors'],
      ['w.onnx', 'onnx'],
    ] as const) {
      const { code, out } = await hpformer('convert', model, at(name), '--to', format, '--json');
      expect([code, JSON.parse(out)]).toEqual([0, expect.objectContaining({ out: at(name), format })]);
    }
    expect(fs.readFileSync(at('z')).equals(fs.readFileSync(model))).toBe(true);
    expect(JSON.parse(read('x').metadata.get('hpformer.config')!)).toEqual(config);
    const tool = await hpformer('inspect', at('z'), '--json', '--device', 'reference');
    expect(JSON.parse(tool.out).config).toEqual(JSON.parse(JSON.stringify(config)));
  });

  test('a graph that takes no padding says so, on standard error or in the JSON', async () => {
    const valid = presets.mortality({
      layers: 1,
      hidden: 8,
      heads: 2,
      embedding: { size: 3 },
      segments: { over: 'valid' },
    });
    const model = save('m.safetensors', valid);
    const note = /^note: segments\.over is 'valid': the graph expects sequences without padding, (.*)$/m;
    const dynamic = await hpformer('convert', model, at('a.onnx'));
    expect([dynamic.code, dynamic.out]).toEqual([0, '']);
    expect(note.exec(dynamic.err)![1]).toBe('all sequences of a batch equally long (ragged ones one by one)');
    const fixed = await hpformer('convert', model, at('b.onnx'), '--steps', '48');
    expect(note.exec(fixed.err)![1]).toBe('exactly 48 steps (a graph with dynamic steps takes other lengths)');
    const json = await hpformer('convert', model, at('c.onnx'), '--steps', '48', '--json');
    expect([json.err, JSON.parse(json.out).notes]).toEqual(['', [fixed.err.split('note: ')[1]!.trimEnd()]]);
    const padded = await hpformer('convert', save('p.safetensors', config), at('d.onnx'));
    expect(padded.err).not.toMatch(note);
    expect((await hpformer('convert', '--help')).out).toMatch(
      /'valid' cuts each sequence at its own length, the graph\n/,
    );
    expect(onnxNotes(valid, { steps: 8, steps2: 16 })[0]).toContain('exactly 8 and 16 steps');
  });

  test('a manifest needs a bundle', async () => {
    const model = save('m.safetensors', config);
    fs.writeFileSync(at('config.json'), JSON.stringify(config));
    fs.writeFileSync(at('features.json'), '{}');
    const got = await hpformer('convert', model, at('n.safetensors'), '--manifest');
    expect(got.code).toBe(1);
    expect(got.err).toMatch(/expected a bundle \(weights with their feature recipe\), got a plain model file/);
  });
});

describe('models with classes', () => {
  const predictions = {
    ids: ['a', 'b', 'c', 'd'],
    groups: ['a', 'b', 'c', 'd'],
    labels: [
      [1, 0, 0, 0],
      [0, 1, 0, 1],
      [0, 0, 1, 0],
    ] as (0 | 1)[][],
    scores: [
      Float64Array.of(0.8, 0.1, 0.2, 0.6),
      Float64Array.of(0.1, 0.8, 0.2, 0.3),
      Float64Array.of(0.1, 0.1, 0.6, 0.1),
    ],
  };

  test('kappa and AUROC where every row has one class, nothing elsewhere', () => {
    const figures = classFigures(predictions)!;
    // Disagreement seen against that of the margins, each weighted by how many classes it is off.
    const [rows, got] = [
      [0, 1, 2, 1],
      [0, 1, 2, 0],
    ];
    let seen = 0;
    let chance = 0;
    for (const [i, row] of rows!.entries()) {
      seen += Math.abs(row - got![i]!);
      for (const other of got!) chance += Math.abs(row - other) / 4;
    }
    expect(figures.kappa).toBeCloseTo(1 - seen / chance, 12);
    expect(figures.microAuroc).toBeGreaterThan(0.8);
    expect(figures.macroAuroc).toBeGreaterThan(0.8);
    const change = (label: number, row: number, value: 0 | 1 | undefined) => ({
      ...predictions,
      labels: predictions.labels.map((list, k) => list.map((old, i) => (k === label && i === row ? value : old))),
    });
    expect(classFigures(change(1, 0, 1) as typeof predictions)).toBeUndefined();
    expect(classFigures(change(0, 0, 0) as typeof predictions)).toBeUndefined();
    expect(classFigures(change(0, 0, undefined) as typeof predictions)).toBeUndefined();
    expect(classFigures({ ...predictions, ids: [], labels: [[], [], []], scores: [] })).toBeUndefined();
    expect(classFigures({ ...predictions, labels: [predictions.labels[0]!] })).toBeUndefined();
  });

  test('the report has them; a report or calibrations that cannot be written are an error', async () => {
    const request = { method: undefined, fitPart: 'valid', report: at('r.html'), save: undefined };
    const names = ['short', 'middle', 'long'];
    await finishReport(request, names, predictions, undefined, [], [['model', 'x']]);
    const figures = classFigures(predictions)!;
    const html = fs.readFileSync(at('r.html'), 'utf8');
    expect(html).toContain('Further figures');
    for (const value of Object.values(figures)) expect(html).toContain(value.toFixed(4));
    for (const change of [{ report: at('none/r.html') }, { save: at('none/c.json') }]) {
      const error = await finishReport({ ...request, ...change }, names, predictions, undefined, [], []).catch(
        (e) => e,
      );
      expect(error).toBeInstanceOf(HPformerError);
      expect(error.message).toMatch(/none\/[rc]\.\w+: cannot be written/);
    }
  });
});

test('scores whose name was taken by a folder meanwhile: an error that names the file, and nothing is left', async () => {
  const writer = new ScoreWriter(at('s.csv'), 'csv', 'id', ['p'], false);
  await writer.begin();
  await writer.rows(['a'], Float32Array.of(0.5));
  fs.mkdirSync(at('s.csv/x'), { recursive: true });
  await expect(writer.end()).rejects.toMatchObject({
    code: 'ERR_HPFORMER_FILE',
    message: expect.stringMatching(/s\.csv: cannot be written/),
  });
  expect(fs.readdirSync(folder)).toEqual(['s.csv']);
});

test('a model directory whose configuration was changed, or is not that of the weights', async () => {
  const source = path.join(__dirname, '../../../examples/nafld-mortality');
  const inspect = async () => (await hpformer('predict', at('model'), source, '--device', 'cpu')).err;
  fs.cpSync(source, at('model'), { recursive: true });
  const config = JSON.parse(fs.readFileSync(at('model/config.json'), 'utf8'));
  const text = JSON.stringify({ ...config, segments: { ...config.segments, times: 2 } });
  fs.writeFileSync(at('model/config.json'), text);
  expect(await inspect()).toMatch(/config\.json: expected SHA-256 .* the model was changed/);
  const manifest = JSON.parse(fs.readFileSync(at('model/hpformer.json'), 'utf8'));
  manifest.files['config.json'] = createHash('sha256').update(text).digest('hex');
  fs.writeFileSync(at('model/hpformer.json'), JSON.stringify(manifest));
  expect(await inspect()).toMatch(/expected the configuration inside the weights file, got another one/);
});
