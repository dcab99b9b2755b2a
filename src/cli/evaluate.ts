import { evaluateLabels, type Figure, type LabelEvaluation, predictLabelled } from '../data/evaluation';
import { labelNames, openSource } from '../data/recipes';
import { type Command, choiceOption, integerOption, note, write, writeJson } from './command';
import { loadOptions, modelOptions, openBundle } from './model';
import { checkOutputs } from './output';
import { Progress } from './progress';
import {
  calibrationTable,
  checkParts,
  classFigures,
  finishReport,
  flattest,
  parts,
  reportOptions,
  reportRequest,
} from './report';
import { nothingScored, ScoreWatch } from './scoreWatch';
import { formatTable } from './table';

function figure({ value, low, high }: Figure): string {
  if (Number.isNaN(value)) return '–';
  const interval = low === undefined || high === undefined ? '' : ` [${low.toFixed(3)}, ${high.toFixed(3)}]`;
  return `${value.toFixed(4)}${interval}`;
}

/** Evaluation of several labels as a table, with the mean AUROC where there is more than one. */
export function evaluationTable(labels: readonly LabelEvaluation[], unit: string): string {
  const rows = labels.map((l) => [
    l.name,
    String(l.rows),
    String(l.events),
    figure(l.auroc),
    figure(l.auprc),
    figure(l.minSensitivityPrecision),
    l.logLoss.toFixed(4),
    l.brier.toFixed(4),
  ]);
  if (labels.length > 1) rows.push(['mean', '', '', figure({ value: macroAuroc(labels) }), '', '', '', '']);
  return formatTable(['label', unit, 'events', 'AUROC', 'AUPRC', 'Min(Se, P+)', 'log loss', 'Brier'], rows);
}

/** Mean AUROC of the labels; NaN when one is undefined. */
export function macroAuroc(labels: readonly LabelEvaluation[]): number {
  return labels.reduce((sum, l) => sum + l.auroc.value, 0) / labels.length;
}

export const evaluate: Command = {
  summary: 'Compares predictions with known outcomes: AUROC, trapezoid AUPRC, Min(Se, P+), log loss, Brier score.',
  usage: '<model> <data>... [options]',
  positionals: { least: 2, most: Number.MAX_SAFE_INTEGER },
  options: {
    part: { type: 'string', value: 'name', help: 'train, valid, test (default) or all' },
    bootstrap: { type: 'string', value: 'n', help: 'samples for 95 % intervals (default 1000; 0: none)' },
    seed: { type: 'string', value: 'n', help: 'seed of the bootstrap (default 1)' },
    batch: { type: 'string', value: 'n', help: 'rows per batch (default 256)' },
    ...reportOptions,
    ...modelOptions,
    json: { type: 'boolean', help: 'figures as JSON, unrounded' },
  },
  notes: [
    'The recipe says who belongs to the cohort and to which part. Rows whose outcome is unknown are left out, label by label.',
    'A list file (…listfile.csv) given by name is judged whole; a folder has its parts in train_, val_ and test_listfile.csv.',
    'Intervals resample whole matched sets. A label with one class only has no ranking figures (–, null in JSON).',
    '',
    '  hpformer evaluate examples/nafld-mortality examples/nafld',
  ],
  async run([source, ...inputs], values, io) {
    const part = choiceOption(values, 'part', parts) ?? 'test';
    const samples = integerOption(values, 'bootstrap', 0, 1_000_000) ?? 1000;
    const seed = integerOption(values, 'seed', 0, Number.MAX_SAFE_INTEGER) ?? 1;
    const batch = integerOption(values, 'batch', 1, 1 << 20) ?? 256;
    const request = reportRequest(values);
    const options = loadOptions(values);
    const outputs = [
      { given: '--report', file: request.report },
      { given: '--save-calibration', file: request.save },
    ];
    await checkOutputs(outputs, [source!, ...inputs]);
    const { model, bundle } = await openBundle(source!, options);
    try {
      const { device, precision, config } = model;
      const data = openSource(bundle, config, inputs);
      const overlap = await checkParts(data, inputs, part, values.part !== undefined, request);
      const scoresOf = (from: string) => {
        const progress = new Progress(io.stderr, data.unit);
        const counted = (async function* () {
          for await (const rows of data.labelled(from, { batch, progress: progress.read })) {
            progress.add(rows.ids.length);
            yield rows;
          }
        })();
        // A new calibration replaces the bundle's, so it is fitted and judged on what the model itself says.
        const raw = request.method !== undefined;
        return predictLabelled(model, counted, config.head.labels, raw).finally(() => progress.end());
      };
      const predictions = await scoresOf(part);
      if (predictions.ids.length === 0) throw nothingScored(inputs, data);
      const watch = new ScoreWatch(0);
      watch.add(predictions.ids, []);
      const warnings = watch.warnings(data.unit);
      if (warnings !== '') await note(io.stderr, warnings);
      const exclusive = config.head.link === 'softmax';
      const names = labelNames(config, bundle.labels);
      const labels = evaluateLabels(predictions, names, { samples, seed });
      const fitting = request.method === undefined ? undefined : await scoresOf(request.fitPart);
      if (overlap)
        await note(
          io.stderr,
          'note: the calibration is judged on rows that it was fitted on, and looks better than it is: give a folder with val_listfile.csv and test_listfile.csv\n',
        );
      const studies = await finishReport(
        request,
        names,
        predictions,
        fitting,
        labels,
        [
          ['model', bundle.name],
          ['SHA-256', bundle.hash],
          ['device', `${device}, ${precision}`],
          ['part', `${part}: ${predictions.ids.length} ${data.unit}`],
        ],
        exclusive,
      );
      if (studies.some((study) => flattest(study)))
        await note(io.stderr, 'note: the temperature is at its bound: these scores rank no better than chance\n');
      const classes = exclusive ? classFigures(predictions) : undefined;
      if (values.json) {
        const macro = labels.length > 1 ? { macro: { auroc: macroAuroc(labels) } } : {};
        const bootstrap = { samples, seed, unit: data.group, level: 0.95 };
        const head = { model: bundle.name, hash: bundle.hash, device, precision, part, rows: predictions.ids.length };
        const more = {
          ...(classes ? { classes } : {}),
          ...(request.method ? { calibration: studies } : {}),
          ...(data.drops ? { dropped: data.drops } : {}),
        };
        await writeJson(io.stdout, { ...head, bootstrap, labels, ...macro, ...more });
        return 0;
      }
      const intervals = samples > 0 ? `; brackets: 95 % of ${samples} bootstrap samples of ${data.group}` : '';
      await write(
        io.stdout,
        `${bundle.name} on ${device}, part ${part}: ${predictions.ids.length} ${data.unit}${intervals}\n\n`,
      );
      await write(io.stdout, evaluationTable(labels, data.unit));
      if (classes) {
        const { kappa, microAuroc } = classes;
        await write(io.stdout, `\nkappa (linear) ${kappa.toFixed(4)}, micro AUROC ${microAuroc.toFixed(4)}\n`);
      }
      if (studies.length > 0) await write(io.stdout, `\n${calibrationTable(studies)}`);
      if (data.drops && data.drops.total > 0) await note(io.stderr, `left out: ${data.drops}\n`);
      return 0;
    } finally {
      model.dispose();
    }
  },
};
