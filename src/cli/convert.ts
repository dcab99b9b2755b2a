import { stat } from 'node:fs/promises';
import path from 'node:path';
import { pathOf } from '../checkpoint/file';
import { loadCheckpoint } from '../checkpoint/load';
import { exportOnnx, type OnnxOptions, onnxNotes, onnxVariants } from '../checkpoint/onnx';
import { serializeCheckpoint } from '../checkpoint/save';
import { bundleKeys } from '../checkpoint/seal';
import { type BundleContent, writeBundle } from '../data/bundle';
import { manifestName, writeManifest } from '../data/modelDirectory';
import { readJson, writeAtomically } from '../files';
import {
  type Command,
  choiceOption,
  integerOption,
  note,
  textOption,
  UsageError,
  type Values,
  writeJson,
} from './command';
import { readConfig } from './model';
import { checkOutputs } from './output';

/** What a bundle is to carry: the file itself, `features` in it or in a file beside it. */
async function readContent(file: string): Promise<BundleContent> {
  const content = (await readJson(file)) as BundleContent;
  if (typeof content?.features !== 'string') return content;
  return { ...content, features: await readJson(path.join(path.dirname(file), content.features)) };
}

const formats = ['safetensors', 'onnx'] as const;
/** Endings that say something about a file; `.pt` files are never written. */
const endings = [...formats, 'pt', 'pth'];

/** The format of the output: `--to`, else what its name says. @throws UsageError. */
function outputFormat(out: string, values: Values): (typeof formats)[number] {
  const to = choiceOption(values, 'to', formats);
  const ending = endings.find((name) => out.endsWith(`.${name}`));
  const format = to ?? formats.find((name) => name === ending);
  if (format === undefined) {
    throw new UsageError(
      `expected an output name that ends in .safetensors or .onnx, or --to <format> with it, got "${out}"`,
    );
  }
  if (ending !== undefined && ending !== format) {
    throw new UsageError(`--to: expected ${format} in a name that ends in .${format} or says nothing, got "${out}"`);
  }
  return format;
}

/** What the graph is to be; `--steps` is a number or `dynamic` (the default). */
function onnxOptions(values: Values): OnnxOptions {
  const variant = choiceOption(values, 'variant', onnxVariants);
  const maximumSteps = integerOption(values, 'maximum-steps', 1, 1 << 24);
  const dynamic = values.steps === undefined || values.steps === 'dynamic';
  const steps = dynamic ? 'dynamic' : integerOption(values, 'steps', 1, 1 << 24)!;
  if (!dynamic && maximumSteps !== undefined)
    throw new UsageError(`--maximum-steps: expected --steps dynamic with it, got ${steps}`);
  return { steps, ...(variant && { variant }), ...(maximumSteps && { maximumSteps }) };
}

export const convert: Command = {
  summary:
    'Turns a PyTorch or safetensors checkpoint into one safetensors file that carries its configuration, or into ONNX.',
  usage: '<in.pt|in.safetensors> <out.safetensors|out.onnx> [options]',
  positionals: { least: 2, most: 2 },
  options: {
    config: {
      type: 'string',
      short: 'c',
      value: 'file',
      help: 'JSON with what names and shapes cannot tell (pooling, readout, ...)',
    },
    bundle: {
      type: 'string',
      value: 'file',
      help: 'JSON with name, recipe, features, labels, provenance: makes a bundle for predict',
    },
    manifest: {
      type: 'boolean',
      help: "writes hpformer.json beside the output: its folder's config.json and features.json join it",
    },
    to: { type: 'string', value: 'format', help: 'safetensors or onnx (default: by the ending of the output name)' },
    variant: {
      type: 'string',
      value: 'name',
      help: `onnx: ${onnxVariants.join(', ')} (default: the fastest for the model)`,
    },
    steps: { type: 'string', value: 'count', help: 'onnx: steps of the input, or dynamic (default)' },
    'maximum-steps': { type: 'string', value: 'count', help: 'onnx: most steps of a dynamic graph (default 4096)' },
    json: { type: 'boolean', help: 'a summary as JSON' },
  },
  notes: [
    'Nothing in a .pt file is executed. Tensors that the forward never reads are left out; unknown ones are an error.',
    'With --to the output may have any name but one that ends in another format (.safetensors, .onnx, .pt, .pth).',
    "An ONNX graph knows no lengths. A model with segments.over 'valid' cuts each sequence at its own length, the graph",
    'at the length of its input: it gives the same results for sequences without padding only, of exactly --steps steps,',
    'or, with dynamic steps, for batches of equally long ones. Such an export says so (in JSON: notes).',
    '',
    '  hpformer convert upstream.pt model.safetensors --config config.json',
    '  hpformer convert model.safetensors model.onnx --steps 48',
  ],
  async run([source, target], values, io) {
    const out = target!;
    const format = outputFormat(out, values);
    const other = format === 'onnx' ? ['bundle', 'manifest'] : ['variant', 'steps', 'maximum-steps'];
    const stray = other.find((name) => values[name] !== undefined);
    if (stray !== undefined) {
      throw new UsageError(
        `--${stray}: expected an output in ${format === 'onnx' ? 'safetensors' : 'ONNX'} with it, got ${format}`,
      );
    }
    const graphOptions = onnxOptions(values);
    const configFile = textOption(values, 'config');
    const bundleFile = textOption(values, 'bundle');
    // A safetensors file may be replaced by its successor; it is read as a whole before.
    const beside = values.manifest ? path.join(path.dirname(out), manifestName) : undefined;
    const described = [configFile, bundleFile].filter((file) => file !== undefined);
    const replaced = out.endsWith('.safetensors') ? [] : [source!];
    await checkOutputs([{ given: 'output', file: out }], [...replaced, ...described]);
    await checkOutputs([{ given: '--manifest', file: beside }], described);
    const given = configFile === undefined ? undefined : await readConfig(configFile);
    const { config, weights, parameterCount, metadata } = await loadCheckpoint(source!, given);
    if (format === 'onnx') {
      const named = Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));
      const graph = exportOnnx(config, named, graphOptions);
      await writeAtomically(pathOf(out), graph);
      const notes = onnxNotes(config, graphOptions);
      if (values.json) await writeJson(io.stdout, { out, bytes: graph.length, format, ...graphOptions, notes, config });
      else {
        await note(io.stderr, `${out}: ONNX graph, ${graph.length} bytes\n`);
        for (const text of notes) await note(io.stderr, `note: ${text}\n`);
      }
      return 0;
    }
    // A bundle stays one, with the hash of what is written now.
    const { [bundleKeys.content]: old, [bundleKeys.hash]: _, ...kept } = metadata;
    const content =
      bundleFile !== undefined ? await readContent(bundleFile) : old && (JSON.parse(old) as BundleContent);
    const plain = serializeCheckpoint(config, weights, kept);
    await writeAtomically(pathOf(out), content ? writeBundle(plain, content) : plain);
    if (values.manifest) {
      const names = { weights: path.basename(out), config: 'config.json', features: 'features.json' };
      await writeManifest(path.dirname(out), names);
    }
    const { size } = await stat(out);
    if (values.json) {
      await writeJson(io.stdout, { out, bytes: size, format, tensors: weights.size, parameterCount, config });
    } else {
      await note(io.stderr, `${out}: ${weights.size} tensors, ${parameterCount.used} parameters, ${size} bytes\n`);
    }
    return 0;
  },
};
