/** Where a model's weights come from and go to. With it come all readers of files: `HPformer` takes it when it first needs it. */
import { createHash } from 'node:crypto';
import { isBytes } from '../checkpoint/file';
import { initialWeights } from '../checkpoint/init';
import { type Checkpoint, loadCheckpoint } from '../checkpoint/load';
import { parameterCount } from '../checkpoint/names';
import type { HPformerConfig } from '../config/types';
import { weightsOf } from '../data/modelDirectory';

export { saveCheckpoint } from '../checkpoint/save';

/** A checkpoint from a file, its bytes (read before this returns) or a model directory; `config` completes or replaces what the file says. */
export async function readWeights(source: string | URL | Uint8Array, config: unknown): Promise<Checkpoint> {
  return loadCheckpoint(isBytes(source) ? source : await weightsOf(source), config);
}

/** A checkpoint of random weights by the upstream initialisation. */
export function randomWeights(config: HPformerConfig, seed: number): Checkpoint {
  return {
    config,
    weights: initialWeights(config, seed),
    // The seed decides every bit, so it stands for the tensors.
    key: createHash('sha256')
      .update(`${seed} ${JSON.stringify(config)}`)
      .digest('hex'),
    parameterCount: parameterCount(config),
    metadata: {},
  };
}
