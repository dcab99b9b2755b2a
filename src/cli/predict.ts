import { scoreBatches } from '../data/evaluation';
import { healthRecipe } from '../data/health/bundle';
import { openSource, scoreColumns } from '../data/recipes';
import { type Command, integerOption, note, textOption, UsageError, writeJson } from './command';
import { loadOptions, modelOptions, openBundle } from './model';
import { checkOutputs } from './output';
import { formatDuration, Progress } from './progress';
import { RecordLog } from './record';
import { ScoreWriter, scoreFormat } from './scoreFile';
import { nothingScored, ScoreWatch } from './scoreWatch';

export const predict: Command = {
  summary: 'Scores raw data files with a model that carries its feature recipe.',
  usage: '<model> <data>... [options]',
  positionals: { least: 2, most: Number.MAX_SAFE_INTEGER },
  options: {
    out: {
      type: 'string',
      short: 'o',
      value: 'file',
      help: 'scores.csv or scores.jsonl (default: CSV on standard output)',
    },
    batch: { type: 'string', value: 'n', help: 'rows per batch (default 256)' },
    record: { type: 'string', value: 'file', help: 'health: append a prediction record (JSON lines) for each row' },
    'record-features': {
      type: 'boolean',
      help: 'with --record: the normalised features too; none are written otherwise',
    },
    workers: {
      type: 'string',
      value: 'n',
      help: 'health: threads that read episode files (default: the cores it may use, 8 at most)',
    },
    ...modelOptions,
    json: { type: 'boolean', help: 'a summary as JSON on standard output; needs --out' },
  },
  notes: [
    '<model> is a model directory (hpformer.json) or a bundle (.safetensors). <data> is what its recipe reads: for the',
    'NAFLD models one folder with people, readings and diagnoses (.csv or .csv.gz); outcome columns are never looked at.',
    'Columns: the id, then probability, or p_<name> for each of several labels.',
    '',
    '  hpformer predict examples/nafld-mortality examples/nafld --out scores.csv',
  ],
  async run([source, ...inputs], values, io) {
    const out = textOption(values, 'out');
    const format = out === undefined ? 'csv' : scoreFormat(out);
    if (values.json && out === undefined)
      throw new UsageError('--json: expected --out <file> with it, since scores go to standard output');
    if (values['record-features'] && values.record === undefined)
      throw new UsageError('--record-features: expected --record <file> with it, got none');
    const batch = integerOption(values, 'batch', 1, 1 << 20) ?? 256;
    const workers = integerOption(values, 'workers', 0, 64);
    const recordFile = textOption(values, 'record');
    const options = loadOptions(values);
    const outputs = [
      { given: '--out', file: out },
      { given: '--record', file: recordFile, appended: true },
    ];
    await checkOutputs(outputs, [source!, ...inputs]);
    const { model, bundle } = await openBundle(source!, options);
    try {
      if (recordFile !== undefined && bundle.recipe !== healthRecipe)
        throw new UsageError('--record: expected a health bundle, whose recipe keeps prediction records');
      const data = openSource(bundle, model.config, inputs);
      const columns = scoreColumns(model.config, bundle.labels);
      const progress = new Progress(io.stderr, data.unit);
      const writer = new ScoreWriter(out ?? io.stdout, format, data.idColumn, columns, model.device === 'reference');
      const records =
        recordFile === undefined ? undefined : new RecordLog(recordFile, values['record-features'] === true);
      let warnings = '';
      try {
        const watch = new ScoreWatch(columns.length);
        for await (const scored of scoreBatches(model, data.score({ batch, progress: progress.read, workers }))) {
          await writer.rows(scored.ids, scored.probabilities);
          await records?.add(scored, model);
          watch.add(scored.ids, scored.probabilities);
          progress.add(scored.ids.length);
        }
        if (watch.rows === 0) throw nothingScored(inputs, data);
        await writer.end();
        await records?.end();
        warnings = watch.warnings(data.unit);
      } catch (error) {
        progress.end();
        await writer.abandon();
        throw error;
      }
      const { rows, seconds } = progress.end();
      const rate = Math.round(rows / seconds);
      if (values.json) {
        const { device, precision } = model;
        await writeJson(io.stdout, {
          model: bundle.name,
          hash: bundle.hash,
          device,
          precision,
          rows,
          seconds,
          out,
          columns,
          ...(data.drops ? { dropped: data.drops } : {}),
        });
      } else if (out !== undefined) {
        await note(
          io.stderr,
          `${rows} ${data.unit} scored by ${bundle.name} on ${model.device} in ${formatDuration(seconds)} (${rate}/s): ${out}\n`,
        );
      }
      if (data.drops && data.drops.total > 0) await note(io.stderr, `left out: ${data.drops}\n`);
      if (warnings !== '') await note(io.stderr, warnings);
      return 0;
    } finally {
      model.dispose();
    }
  },
};
