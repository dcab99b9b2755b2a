/**
 * Everything that reads bytes from strangers. A target returns, or throws HPformerError; anything else is a finding.
 * Used by fuzz.test.ts (short, seeded) and by test/tools/fuzz.sh (Jazzer.js, as long as you like).
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { initialWeights } from '../../src/checkpoint/init';
import { parseCheckpoint } from '../../src/checkpoint/load';
import { exportOnnx, onnxVariants } from '../../src/checkpoint/onnx';
import { readSafetensors } from '../../src/checkpoint/safetensors';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { readTorch } from '../../src/checkpoint/torch/read';
import { presets } from '../../src/config/presets';
import { validateConfig } from '../../src/config/validate';
import { readBundle } from '../../src/data/bundle';
import { parseNumber, readCsv } from '../../src/data/csv';
import {
  Calibration,
  discretize,
  EpisodePreparer,
  extractSubject,
  healthTasks,
  Normalizer,
  openEpisodes,
  readListFile,
} from '../../src/data/health';
import { DropReport } from '../../src/data/health/arrays';
import { readPrepared } from '../../src/data/health/prepared';
import { parseRecipe } from '../../src/data/nafld';
import { HPformerError } from '../../src/errors';
import { decode } from '../unit/onnx/interpreter';

function ownCheckpoint(): Uint8Array {
  const config = presets.mortality({ layers: 1, hidden: 8, embedding: { size: 3 } });
  return serializeCheckpoint(config, initialWeights(config, 1));
}

export interface FuzzTarget {
  name: string;
  /** Inputs to mutate; the first is accepted as it is. */
  seeds(): Uint8Array[];
  run(bytes: Uint8Array): unknown | Promise<unknown>;
}

const reference = join(__dirname, '..', 'fixtures', 'reference');
const examples = join(__dirname, '..', '..', 'examples');
const fixtures = (pattern: RegExp) =>
  readdirSync(reference)
    .filter((name) => pattern.test(name))
    .map((name) => new Uint8Array(readFileSync(join(reference, name))));
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8');
const json = (value: unknown) => new Uint8Array(Buffer.from(JSON.stringify(value)));

/** JSON of a stranger: what JSON.parse itself refuses never reaches the target. */
function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(text(bytes));
  } catch {
    throw new HPformerError('ERR_HPFORMER_FILE', 'not JSON');
  }
}

const episode = `Hours,Capillary refill rate,Diastolic blood pressure,Fraction inspired oxygen,Glascow coma scale eye opening,Glascow coma scale motor response,Glascow coma scale total,Glascow coma scale verbal response,Glucose,Heart Rate,Height,Mean blood pressure,Oxygen saturation,Respiratory rate,Systolic blood pressure,Temperature,Weight,pH
0.5,0.0,60,0.5,4 Spontaneously,6 Obeys Commands,15,5 Oriented,120,80,170,80,98,18,120,36.6,70,7.4
1.75,,61.5,,,,,,,81,,,97,,,,,
30.1,1.0,,,,,,,,99,,,,,,,,7.31
`;

/** A small model of each graph shape, its weights made once; a stranger brings the names of its labels and what the command line takes. */
const exported = (['mortality', 'image', 'listops', 'retrieval'] as const).map((name) => {
  const config = presets[name]({ layers: 1, hidden: 8, heads: 2 });
  const weights = Object.fromEntries([...initialWeights(config, 1)].map(([key, { data }]) => [key, data]));
  return { config, weights };
});

function exportNamed(bytes: Uint8Array): void {
  const { graph = 0, names, steps, maximumSteps, variant } = (parsed(bytes) ?? {}) as Record<string, unknown>;
  const { config, weights } = exported[Number(graph) & 3]!;
  const named = validateConfig({ ...config, head: { ...config.head, names } });
  // What the command line lets through: counts, and the names of the forms. Long graphs have long tables and nothing new.
  const count = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 1;
  const longest = 512;
  const file = exportOnnx(named, weights, {
    steps: count(steps) ? Math.min(steps, longest) : 'dynamic',
    ...(count(maximumSteps) ? { maximumSteps: Math.min(maximumSteps, longest) } : { maximumSteps: longest }),
    variant: onnxVariants[Number(variant) % onnxVariants.length] ?? 'written',
  });
  const { metadata } = decode(file);
  const carried = JSON.parse(metadata.get('hpformer.config')!) as typeof named;
  // Half a surrogate pair cannot be written as UTF-8.
  const well = (list: readonly string[] | null | undefined) => list?.map((label) => Buffer.from(label).toString());
  if (JSON.stringify(well(carried.head.names)) !== JSON.stringify(well(named.head.names)))
    throw new Error(`the graph carries the labels ${JSON.stringify(carried.head.names)}`);
}

/** A folder of this process for readers that take files. */
let scratch: string | undefined;
function placed(name: string, bytes: Uint8Array): string {
  if (scratch === undefined) {
    const folder = mkdtempSync(join(tmpdir(), 'hpformer-fuzz-'));
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    scratch = folder;
  }
  const file = join(scratch, name);
  writeFileSync(file, bytes);
  return file;
}

async function everyEpisode(bytes: Uint8Array): Promise<void> {
  const drops = new DropReport();
  const preparer = new EpisodePreparer({ task: healthTasks['in-hospital-mortality'], unknown: 'skip' });
  for await (const input of openEpisodes([placed('rows.jsonl', bytes)], { drops, lenient: true }))
    preparer.prepare(input);
}

const observation = {
  resourceType: 'Observation',
  id: 'o1',
  status: 'final',
  encounter: { reference: 'Encounter/1' },
  effectiveDateTime: '2020-01-01T01:00:00Z',
  code: { coding: [{ system: 'http://loinc.org', code: '8867-4' }] },
  valueQuantity: { value: 80, unit: '/min', system: 'http://unitsofmeasure.org', code: '/min' },
};
const encounter = { resourceType: 'Encounter', id: '1', period: { start: '2020-01-01T00:00:00Z' } };
const jsonLines = (...rows: unknown[]) =>
  new Uint8Array(Buffer.from(rows.map((row) => JSON.stringify(row)).join('\n')));

const subject = ['events', 'stays', 'diagnoses']
  .map((name) => readFileSync(join(reference, '..', 'health', 'events', `${name}.csv`), 'utf8'))
  .join('=====\n');

/** A manifest of prepared arrays beside files for two stays of two steps with three columns. */
async function readManifest(bytes: Uint8Array): Promise<void> {
  const file = placed('prepare.json', bytes);
  placed('ids.txt', Buffer.from('a\nb\n'));
  for (const name of ['bins', 'step']) placed(`${name}.npy`, new Uint8Array(128 + 2 * 4));
  placed('features.npy', new Uint8Array(128 + 2 * 2 * 3 * 4));
  for await (const stays of readPrepared(dirname(file), 'hash', 2))
    for (const { features } of stays) if (features.length !== 6) throw new Error(`features of ${features.length}`);
}

export const targets: FuzzTarget[] = [
  { name: 'safetensors', seeds: () => fixtures(/^lra_L1\.safetensors$/), run: (bytes) => readSafetensors(bytes) },
  { name: 'torch', seeds: () => fixtures(/\.pt$/), run: (bytes) => readTorch(bytes) },
  { name: 'checkpoint', seeds: () => [ownCheckpoint(), ...fixtures(/^ckpt_/)], run: (bytes) => parseCheckpoint(bytes) },
  {
    name: 'config',
    seeds: () => Object.values(presets).map((preset) => json(preset())),
    run: (bytes) => validateConfig(parsed(bytes)),
  },
  { name: 'bundle', seeds: () => fixtures(/^ckpt_health_ihmp\.safetensors$/), run: (bytes) => readBundle(bytes) },
  {
    name: 'recipe',
    seeds: () => [new Uint8Array(readFileSync(join(examples, 'nafld-mortality', 'features.json')))],
    run: (bytes) => parseRecipe(parsed(bytes)),
  },
  { name: 'episode', seeds: () => [new Uint8Array(Buffer.from(episode))], run: (bytes) => discretize(text(bytes)) },
  {
    name: 'normalizer',
    seeds: () => [json({ mean: [0, 1], scale: [1, 2] }), json({ means: [1, 2, 3], stds: [1, 1, 0.5] })],
    run: (bytes) => Normalizer.fromJSON(text(bytes)),
  },
  {
    name: 'listfile',
    seeds: () => [
      new Uint8Array(
        Buffer.from('stay,period_length,y_true\n1_episode1_timeseries.csv,48.0,1\n2_episode2_timeseries.csv,5.5,0\n'),
      ),
    ],
    run: (bytes) => readListFile(text(bytes), 'listfile.csv'),
  },
  {
    name: 'calibration',
    seeds: () => [
      json({ method: 'platt', slope: 1, intercept: 0 }),
      json({ method: 'isotonic', scores: [0, 0.5, 1], probabilities: [0.1, 0.2, 0.9] }),
    ],
    run: (bytes) => Calibration.fromJSON(parsed(bytes)).probability(0.3),
  },
  {
    name: 'onnx',
    seeds: () => [
      json({ graph: 0, names: ['death'], steps: 48, variant: 0 }),
      json({ graph: 1, names: Array.from({ length: 10 }, (_, i) => `class ${i}`), maximumSteps: 64, variant: 2 }),
    ],
    run: exportNamed,
  },
  {
    name: 'csv',
    seeds: () => [new Uint8Array(Buffer.from('id,time,value,unit\n1,0.5,80,bpm\n1,1.5,,\n2,-3,1e3,x\n'))],
    run: async (bytes) => {
      for await (const rows of readCsv(placed('table.csv', bytes), ['id', 'time', 'value'], ['unit']))
        for (const { row, fields } of rows) parseNumber('table.csv', row, 'time', fields[1]);
    },
  },
  {
    name: 'rows',
    seeds: () => [
      jsonLines(
        { stay: 'a', hours: 1.5, variable: 'Heart Rate', value: 80, unit: '/min' },
        { stay: 'a', hours: 2, variable: 'Glascow coma scale total', value: 15 },
        { stay: 'b', readings: [{ hours: 0.5, variable: 'Temperature', value: '98.6', unit: '[degF]' }] },
      ),
      jsonLines(encounter, observation, {
        resourceType: 'Bundle',
        entry: [{ resource: { ...observation, id: 'o2' } }],
      }),
    ],
    run: everyEpisode,
  },
  {
    name: 'subject',
    seeds: () => [new Uint8Array(Buffer.from(subject))],
    run: (bytes) => {
      const [events = '', stays = '', diagnoses = ''] = text(bytes).split('=====\n');
      for (const compat of ['corrected', 'published'] as const)
        try {
          extractSubject({ events, stays, diagnoses, compat });
        } catch (error) {
          if (compat === 'published' || !(error instanceof HPformerError)) throw error;
        }
    },
  },
  {
    name: 'prepared',
    seeds: () => [
      json({
        format: 'hpformer-prepared',
        version: 1,
        steps: 2,
        columns: ['a', 'b', 'c'],
        episodes: 2,
        preprocessing: 'hash',
      }),
    ],
    run: readManifest,
  },
];

/** Runs a target and rethrows only what is a finding. */
export async function guarded(target: FuzzTarget, bytes: Uint8Array): Promise<void> {
  try {
    await target.run(bytes);
  } catch (error) {
    if (!(error instanceof HPformerError)) throw error;
    // A defect that was caught and named is still a defect.
    if (error.code === 'ERR_HPFORMER_INTERNAL') throw error;
  }
}
