/** Options that are undefined are options left out, for the compiler (exactOptionalPropertyTypes) as when it runs. */
import {
  DropReport,
  decompensationLabels,
  discretize,
  EpisodePreparer,
  episodeFromText,
  healthTasks,
  lengthOfStayLabels,
  metrics,
  Normalizer,
  openEpisodes,
  reliability,
  synthesizeEpisode,
} from '../../../src/data/health';

const { text } = synthesizeEpisode(1, { hours: undefined, seed: undefined });
const task = healthTasks['in-hospital-mortality'];

test('every optional property takes undefined', async () => {
  expect(text).toBe(synthesizeEpisode(1).text);
  const none = { step: undefined, fill: undefined, start: undefined, masks: undefined };
  const episode = discretize(text, { ...none, end: undefined, unknown: undefined, file: undefined });
  expect(episode).toEqual(discretize(text));
  const rows = [episode.values];
  expect(Normalizer.fit(rows, { columns: undefined, width: undefined, names: undefined })).toEqual(
    Normalizer.fit(rows),
  );
  const prepare = (preparer: EpisodePreparer) => preparer.prepare(episodeFromText('a', 'a', text));
  expect(prepare(new EpisodePreparer({ task, normalizer: undefined, bins: none, unknown: undefined }))).toEqual(
    prepare(new EpisodePreparer({ task })),
  );
  expect(prepare(new EpisodePreparer({ task, bins: undefined }))?.bins).toBe(48);
  const samples = [5, 6, 7].map((hours) => ({ hours, label: 1 }));
  const left = { steps: undefined, compat: undefined };
  expect(decompensationLabels(samples, left)).toEqual(decompensationLabels(samples));
  expect(lengthOfStayLabels(samples, left)).toEqual(lengthOfStayLabels(samples));
  expect(reliability([0, 1], [0.1, 0.9], { bins: undefined, strategy: undefined }).bins).toHaveLength(10);
  const mean = (weights: Uint32Array) => ({ mean: weights[0]! });
  const options = { samples: undefined, level: undefined, seed: undefined };
  expect(metrics.bootstrap(['a', 'b'], mean, options)).toEqual(metrics.bootstrap(['a', 'b'], mean));
  const drops = new DropReport();
  await expect(openEpisodes([], { drops, lenient: undefined }).next()).resolves.toMatchObject({ done: true });
});
