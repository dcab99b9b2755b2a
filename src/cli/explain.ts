import path from 'node:path';
import { countCut, DropReport, EpisodePreparer } from '../data/health/arrays';
import { readHealthPreprocessing } from '../data/health/bundle';
import { noStays, openEpisodes } from '../data/health/episodes';
import { attentionNotice, explainEpisode, explanationCsv, spanName } from '../data/health/explain';
import { explanationSvg } from '../data/health/heatmap';
import { makeFolder, writeAtomically } from '../files';
import { type Command, choiceOption, integerOption, note, textOption, UsageError, write, writeJson } from './command';
import { loadOptions, modelOptions, openBundle } from './model';
import { refuseInput } from './output';
import { formatTable } from './table';

/** `hpformer explain`: which hours of a stay a prediction looked at, and what it changes when they are taken away. */
export const explain: Command = {
  summary: 'Explains predictions of a health bundle by time span: attention, hour weights, perturbations.',
  usage: '<bundle> <episodes>... [options]',
  positionals: { least: 2, most: Number.MAX_SAFE_INTEGER },
  options: {
    out: { type: 'string', short: 'o', value: 'folder', help: 'writes <stay>.csv, .json, .svg of each stay' },
    hour: { type: 'string', value: 'n', help: 'hourly tasks: the hour that is explained (default: the last)' },
    perturb: { type: 'string', value: 'name', help: 'all (default), variables, spans or none' },
    most: { type: 'string', value: 'n', help: 'stays to explain (default 20)' },
    ...modelOptions,
    json: { type: 'boolean', help: 'explanations as JSON on standard output' },
  },
  notes: [
    ...attentionNotice.split(/(?<=;) /),
    'Files of a second stay of the same name are <stay>-2.csv and so on.',
    '',
    '  hpformer explain bundle.safetensors 10001_episode1_timeseries.csv --out why',
  ],
  async run([source, ...inputs], values, io) {
    const out = textOption(values, 'out');
    const hour = integerOption(values, 'hour', 1, 1_000_000);
    const most = integerOption(values, 'most', 1, 1_000_000_000) ?? 20;
    const perturb = choiceOption(values, 'perturb', ['all', 'variables', 'spans', 'none'] as const) ?? 'all';
    const { model, bundle } = await openBundle(source!, loadOptions(values));
    try {
      const { task, bins, normalizer, calibration } = readHealthPreprocessing(bundle, model.config);
      if (hour !== undefined && hour > task.steps * bins.step) {
        throw new UsageError(`--hour: expected at most ${task.steps * bins.step}, got ${hour}`);
      }
      const preparer = new EpisodePreparer({ task, normalizer, bins });
      const all = [];
      let done = 0;
      const names = new FileNames();
      const drops = new DropReport();
      for await (const input of openEpisodes(inputs, { drops })) {
        if (done === most) break;
        const episode = preparer.prepare(input);
        if (!episode) {
          drops.add('no reading in the window of the task', input.file);
          continue;
        }
        done++;
        countCut(drops, episode, input.file);
        if (hour !== undefined && hour > episode.bins * bins.step)
          throw new UsageError(`--hour: expected at most ${episode.bins * bins.step} for ${episode.id}, got ${hour}`);
        const at = hour === undefined ? episode.step : Math.ceil(hour / bins.step) - 1;
        const explanation = await explainEpisode(model, episode, { task, step: bins.step, at, perturb, calibration });
        if (out !== undefined) {
          await makeFolder(out);
          const base = path.join(out, names.take(explanation.id.replace(/[^\w.-]/g, '_')));
          for (const ending of ['csv', 'json', 'svg'])
            await refuseInput('--out', `${base}.${ending}`, [source!, ...inputs]);
          await writeAtomically(`${base}.csv`, explanationCsv(explanation));
          await writeAtomically(`${base}.json`, `${JSON.stringify(explanation, null, 1)}\n`);
          await writeAtomically(`${base}.svg`, explanationSvg(explanation));
        }
        if (values.json) {
          all.push(explanation);
          continue;
        }
        const { id, probabilities, spans, meanAttention, perturbations } = explanation;
        const shown = probabilities.map((p) => p.toFixed(4)).join(', ');
        await write(io.stdout, `${id}: probability ${shown} at hour ${explanation.hour}\n\n`);
        const without = new Map(perturbations.filter((p) => p.kind === 'span').map((p) => [p.name, p.change[0]!]));
        const rows = spans.map((span, s) => {
          const change = without.get(spanName(span));
          return [spanName(span), meanAttention[s]!.toFixed(3), change === undefined ? '–' : signed(change)];
        });
        await write(io.stdout, `${formatTable(['span', 'mean attention', 'change without it'], rows)}\n`);
        const variables = perturbations
          .filter((p) => p.kind === 'variable')
          .sort((a, b) => Math.abs(b.change[0]!) - Math.abs(a.change[0]!))
          .slice(0, 5)
          .map((p) => [p.name, signed(p.change[0]!)]);
        if (variables.length > 0)
          await write(io.stdout, `${formatTable(['variable', 'change without it'], variables)}\n`);
      }
      if (done === 0) throw noStays(inputs, drops);
      if (values.json) await writeJson(io.stdout, all);
      else await write(io.stdout, `${attentionNotice}\n`);
      if (drops.total > 0) await note(io.stderr, `left out: ${drops}\n`);
      return 0;
    } finally {
      model.dispose();
    }
  },
};

/** Names of files, each once, where the file system takes capitals for small letters too. */
class FileNames {
  private readonly taken = new Set<string>();

  /** @returns the name, or with `-2`, `-3` … after it where it is taken. */
  take(name: string): string {
    let free = name;
    for (let count = 2; this.taken.has(free.toLowerCase()); count++) free = `${name}-${count}`;
    this.taken.add(free.toLowerCase());
    return free;
  }
}

function signed(value: number): string {
  return `${value >= 0 ? '+' : ''}${value.toFixed(4)}`;
}
