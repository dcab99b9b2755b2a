/**
 * Everything that reads bytes from strangers. A target returns, or throws HPformerError; anything else is a finding.
 * Used by fuzz.test.ts (short, seeded) and by test/tools/fuzz.sh (Jazzer.js, as long as you like).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { initialWeights } from '../../src/checkpoint/init';
import { parseCheckpoint } from '../../src/checkpoint/load';
import { readSafetensors } from '../../src/checkpoint/safetensors';
import { serializeCheckpoint } from '../../src/checkpoint/save';
import { readTorch } from '../../src/checkpoint/torch/read';
import { presets } from '../../src/config/presets';
import { validateConfig } from '../../src/config/validate';
import { readBundle } from '../../src/data/bundle';
import { Calibration, discretize, Normalizer, readListFile } from '../../src/data/health';
import { parseRecipe } from '../../src/data/nafld';
import { HPformerError } from '../../src/errors';

function ownCheckpoint(): Uint8Array {
  const config = presets.mortality({ layers: 1, hidden: 8, embedding: { size: 3 } });
  return serializeCheckpoint(config, initialWeights(config, 1));
}

export interface FuzzTarget {
  name: string;
  /** Inputs to mutate; the first is accepted as it is. */
  seeds(): Uint8Array[];
  run(bytes: Uint8Array): unknown;
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
];

/** Runs a target and rethrows only what is a finding. */
export function guarded(target: FuzzTarget, bytes: Uint8Array): void {
  try {
    target.run(bytes);
  } catch (error) {
    if (!(error instanceof HPformerError)) throw error;
    // A defect that was caught and named is still a defect.
    if (error.code === 'ERR_HPFORMER_INTERNAL') throw error;
  }
}
