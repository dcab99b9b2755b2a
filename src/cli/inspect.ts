import { type Command, integerOption, textOption, UsageError, write, writeJson } from './command';
import { loadOptions, modelOptions, openModel, readConfig } from './model';
import { formatPairs } from './table';

/** Leaves of an object as dotted names, arrays and short objects on one line. */
function flatten(value: unknown, name = ''): [string, string][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[name, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, item]) => flatten(item, name ? `${name}.${key}` : key));
}

export const inspect: Command = {
  summary: 'Shows what a model is: configuration, parameters, graph; for an input shape the plan with FLOPs and bytes.',
  usage: '<model> [options]',
  positionals: { least: 1, most: 1 },
  options: {
    batch: { type: 'string', value: 'B', help: 'with --steps: the plan for a batch of B sequences (default 1)' },
    steps: { type: 'string', value: 'L', help: 'steps of each sequence' },
    steps2: { type: 'string', value: 'L2', help: 'steps of the second sequence (default L)' },
    rows: { type: 'string', value: 'n', help: 'steps that the readout reads (default: what the readout needs)' },
    config: { type: 'string', value: 'file', help: "configuration, where the file's own is missing or incomplete" },
    ...modelOptions,
    mermaid: { type: 'boolean', help: 'graph, or plan, as a Mermaid flowchart' },
    json: { type: 'boolean', help: 'everything as JSON' },
  },
  notes: ['  hpformer inspect examples/nafld-mortality --batch 32 --steps 48'],
  async run([source], values, io) {
    const batch = integerOption(values, 'batch', 1, 0x7fffffff);
    const steps = integerOption(values, 'steps', 1, 0x7fffffff);
    const steps2 = integerOption(values, 'steps2', 1, 0x7fffffff);
    const rows = integerOption(values, 'rows', 0, 0x7fffffff);
    if (steps === undefined && (batch ?? steps2 ?? rows) !== undefined) {
      throw new UsageError('--batch, --steps2, --rows: expected --steps <L> with them, got none');
    }
    if (values.json && values.mermaid) throw new UsageError('--json, --mermaid: expected one of them, got both');
    const file = textOption(values, 'config');
    const config = file === undefined ? undefined : await readConfig(file);
    const { model, bundle } = await openModel(source!, { ...loadOptions(values), config });
    try {
      const plan = steps === undefined ? undefined : model.plan({ batch: batch ?? 1, steps, steps2, rows });
      if (values.mermaid) {
        await write(io.stdout, `${(plan ?? model.graph).toMermaid()}\n`);
        return 0;
      }
      const { device, precision, parameterCount } = model;
      if (values.json) {
        const { hash, name, recipe, labels, provenance } = bundle ?? {};
        const about = bundle ? { bundle: { name, hash, recipe, labels, provenance } } : {};
        const shown = { config: model.config, parameterCount, device, precision, ...about, graph: model.graph };
        await writeJson(io.stdout, plan ? { ...shown, plan } : shown);
        return 0;
      }
      const about: [string, string][] = bundle
        ? [
            ['name', bundle.name],
            ['recipe', bundle.recipe],
            ...bundle.labels.map((label, i): [string, string] => [i === 0 ? 'predicts' : '', label]),
            ['hash', bundle.hash],
          ]
        : [];
      const pairs: [string, string][] = [
        ...about,
        ['device', `${device}, ${precision}`],
        ['parameters', `${parameterCount.used} used, ${parameterCount.trainable} trainable`],
      ];
      await write(io.stdout, `${formatPairs(pairs)}\nConfiguration\n${formatPairs(flatten(model.config))}\n`);
      await write(io.stdout, `Graph\n${model.graph}\n`);
      if (plan) await write(io.stdout, `\nPlan\n${plan}\n`);
      return 0;
    } finally {
      model.dispose();
    }
  },
};
