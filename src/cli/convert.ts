import { stat } from 'node:fs/promises';
import { loadCheckpoint } from '../checkpoint/load';
import { saveCheckpoint } from '../checkpoint/save';
import { type Command, textOption, UsageError, write, writeJson } from './command';
import { readConfig } from './model';

export const convert: Command = {
  summary: 'Turns a PyTorch or safetensors checkpoint into one safetensors file that carries its configuration.',
  usage: '<in.pt|in.safetensors> <out.safetensors> [options]',
  positionals: { least: 2, most: 2 },
  options: {
    config: {
      type: 'string',
      short: 'c',
      value: 'file',
      help: 'JSON with what names and shapes cannot tell (pooling, readout, ...)',
    },
    json: { type: 'boolean', help: 'a summary as JSON' },
  },
  notes: [
    'Nothing in a .pt file is executed. Tensors that the forward never reads are left out; unknown ones are an error.',
  ],
  async run([source, target], values, io) {
    if (!target!.endsWith('.safetensors')) {
      throw new UsageError(`expected an output name that ends in .safetensors, got "${target}"`);
    }
    const file = textOption(values, 'config');
    const { config, weights, parameterCount, metadata } = await loadCheckpoint(
      source!,
      file === undefined ? undefined : await readConfig(file),
    );
    await saveCheckpoint(target!, config, weights, metadata);
    const { size } = await stat(target!);
    if (values.json) {
      await writeJson(io.stdout, { out: target, bytes: size, tensors: weights.size, parameterCount, config });
    } else {
      await write(io.stderr, `${target}: ${weights.size} tensors, ${parameterCount.used} parameters, ${size} bytes\n`);
    }
    return 0;
  },
};
