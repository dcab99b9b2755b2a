import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { presets } from '../../../src/config/presets';
import {
  Calibration,
  EpisodePreparer,
  episodeFromText,
  explainEpisode,
  explanationCsv,
  explanationSvg,
  healthTasks,
  Normalizer,
  predictionRecord,
  RecordWriter,
  synthesizeEpisode,
} from '../../../src/data/health';
import { HPformer } from '../../../src/model/hpformer';
import { fixtureJson } from './fixtures';

const task = healthTasks['in-hospital-mortality'];
const normalizer = Normalizer.fromJSON(fixtureJson('ihm/expected/normalizer.json'));
const episode = (() => {
  const { id, text } = synthesizeEpisode(4);
  return new EpisodePreparer({ task, normalizer }).prepare(episodeFromText(id, id, text))!;
})();
let model: HPformer;
beforeAll(async () => {
  model = await HPformer.create(presets.mortality({ hidden: 16, layers: 2 }), { seed: 3, device: 'reference' });
});
afterAll(() => model.dispose());

describe('explainEpisode', () => {
  test('spans of hours, weights that sum to 1, and changes that the model itself gives', async () => {
    const got = await explainEpisode(model, episode, { task });
    expect(got.notice).toMatch(/not what caused/);
    expect(got.spans).toEqual([0, 12, 24, 36].map((from) => ({ from, to: from + 12 })));
    expect([got.attention.length, got.attention[0]!.length]).toEqual([2, 8]);
    for (const head of got.attention.flat()) {
      expect(head.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    }
    expect(got.meanAttention.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    for (let s = 0; s < 4; s++) {
      const sum = got.hours.filter((h) => h.span === s).reduce((a, b) => a + b.weight, 0);
      expect(sum).toBeCloseTo(1, 9);
    }
    expect(got.hours[47]).toMatchObject({ hour: 48, span: 3 });
    expect(got.perturbations).toHaveLength(17 + 4);

    const heart = got.perturbations.find((p) => p.name === 'Heart Rate')!;
    const changed = episode.features.slice();
    const unread = Math.min(...Array.from({ length: 48 }, (_, t) => episode.features[t * 76 + 67]!));
    for (let t = 0; t < 48; t++) {
      changed[t * 76 + 50] = 0;
      changed[t * 76 + 67] = unread;
    }
    const run = async (features: Float32Array) =>
      Number(
        (await model.run({ features: { type: 'float32', data: features, dims: [1, 48, 76] } })).probabilities.data[0],
      );
    expect(got.probabilities[0]).toBe(await run(episode.features));
    expect(heart.probabilities[0]).toBe(await run(changed));
    expect(heart.change[0]).toBe(heart.probabilities[0]! - got.probabilities[0]!);
  });

  test('calibrated, without perturbations, as CSV and SVG', async () => {
    const calibration = [Calibration.fit('platt', [0, 1, 0, 1, 1], [0.1, 0.3, 0.5, 0.6, 0.9])];
    const raw = await explainEpisode(model, episode, { task, perturb: 'none' });
    const got = await explainEpisode(model, episode, { task, perturb: 'spans', calibration });
    expect(got.probabilities[0]).toBe(calibration[0]!.probability(raw.probabilities[0]!));
    expect(raw.perturbations).toEqual([]);
    const lines = explanationCsv(got).trimEnd().split('\n');
    expect(lines).toHaveLength(1 + 1 + 2 * 8 * 4 + 48 + 4);
    expect(lines[2]).toMatch(/^100004_episode1,attention,0,0,0–12 h,0,12,,0\.\d+$/);
    const svg = explanationSvg(got);
    expect(svg).toMatch(/^<svg xmlns/);
    expect(svg).toContain('not what caused the outcome');
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg.match(/<rect/g)).toHaveLength(4 + 2 * 8 * 4 + 48 + 4);
    expect(svg).not.toMatch(/https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
  });

  test('an hour of an hourly task', async () => {
    const hourly = await HPformer.create(presets.decompensation({ hidden: 16, layers: 1 }), { seed: 3, device: 'cpu' });
    const dp = healthTasks.decompensation;
    const { id, text } = synthesizeEpisode(5, { hours: 80 });
    const stay = new EpisodePreparer({ task: dp, normalizer }).prepare(episodeFromText(id, id, text))!;
    const got = await explainEpisode(hourly, stay, { task: dp, at: 30, perturb: 'spans' });
    expect(got.spans).toHaveLength(7);
    expect(got.hour).toBe(31);
    // Two spans of 72 hours hold the stay; the empty rest cannot be taken away.
    expect(got.perturbations.map((p) => p.name)).toEqual(['0–72 h', '72–144 h']);
    const { probabilities } = await hourly.run({
      features: { type: 'float32', data: stay.features, dims: [1, 504, 76] },
    });
    expect(got.probabilities[0]).toBe(probabilities.data[30]);
    await expect(explainEpisode(hourly, stay, { task: dp, at: 504 })).rejects.toThrow(/a step 0…503/);
    hourly.dispose();
  });

  test('a stay of another task is refused', async () => {
    await expect(explainEpisode(model, { ...episode, features: new Float32Array(10) }, { task })).rejects.toThrow(
      /features of 48 steps/,
    );
  });
});

describe('prediction record', () => {
  const context = {
    task: task.name,
    labelNames: ['death'],
    modelHash: 'a'.repeat(64),
    preprocessingHash: 'b'.repeat(64),
    device: 'cpu',
    now: () => new Date(0),
  };

  test('says what a reader needs, and no values unless asked', () => {
    const calibration = [Calibration.fit('temperature', [0, 1, 0, 1], [0.2, 0.3, 0.6, 0.7])];
    const record = predictionRecord(episode, [0.25], { ...context, calibration });
    expect(record).toEqual({
      format: 'hpformer-prediction',
      version: 1,
      id: '100004_episode1',
      time: '1970-01-01T00:00:00.000Z',
      task: 'in-hospital-mortality',
      labels: [{ name: 'death', raw: 0.25, calibrated: calibration[0]!.probability(0.25) }],
      observed: expect.closeTo(0.4, 0),
      steps: 48,
      lastReadingAge: expect.closeTo(0.5, 0),
      skipped: 0,
      model: context.modelHash,
      preprocessing: context.preprocessingHash,
      device: 'cpu',
      warnings: [],
    });
    expect(predictionRecord(episode, [0.25], { ...context, includeFeatures: true }).features).toHaveLength(48 * 76);
  });

  test('warns', () => {
    const poor = { ...episode, observed: 0.01, lastReadingAge: 20, skipped: 3 };
    expect(predictionRecord(poor, [Number.NaN], context).warnings).toEqual([
      'only 1.0 % of values were observed',
      'the last reading is 20.0 h old',
      '3 readings were skipped for unknown texts',
      'a probability is not finite: a reading was NaN or infinite',
      'probabilities are not calibrated',
    ]);
    expect(() => predictionRecord(episode, [1, 2], context)).toThrow(/expected 1 probabilities, got 2/);
  });

  test('the writer appends lines, and names a file it cannot write', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hpformer-record-'));
    const file = join(folder, 'r.jsonl');
    for (let i = 0; i < 2; i++) {
      const writer = new RecordWriter(file);
      await writer.write(predictionRecord(episode, [0.5], context));
      await writer.end();
    }
    expect(
      readFileSync(file, 'utf8')
        .trimEnd()
        .split('\n')
        .map((l) => JSON.parse(l).labels[0].raw),
    ).toEqual([0.5, 0.5]);
    const bad = new RecordWriter(join(folder, 'no/such/r.jsonl'));
    await expect(bad.write(predictionRecord(episode, [0.5], context)).then(() => bad.end())).rejects.toThrow(
      /cannot be written/,
    );
    rmSync(folder, { recursive: true });
  });
});
