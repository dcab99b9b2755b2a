import type { HPformerConfig } from '../../config/types';
import { HPformerError } from '../../errors';
import { describe } from '../../tensor/shape';
import type { Bundle } from '../bundle';
import type { LabelledBatch, ReadOptions, ScoreBatch, ScoreSource } from '../recipes';
import { nafldBatches } from './batches';
import { labelOf, type Part, parseOutcomes, partOf, parts } from './cohort';
import type { Person } from './people';
import { type NafldRecipe, parseRecipe } from './recipe';

function misfit(bundle: Bundle, message: string): HPformerError {
  return new HPformerError('ERR_HPFORMER_CHECKPOINT', `${bundle.name}: ${message}`);
}

/** A model of this recipe takes exactly its channels and answers with outcomes that the data can tell. */
function checkFit(bundle: Bundle, config: HPformerConfig, recipe: NafldRecipe): void {
  const { embedding, readout, segments, head } = config;
  if (embedding.kind !== 'features' || embedding.size !== recipe.width) {
    const got = embedding.kind === 'features' ? `${embedding.size} features` : embedding.kind;
    throw misfit(bundle, `expected a model of ${recipe.width} features (its recipe's channels), got ${got}`);
  }
  if (readout !== 'step') throw misfit(bundle, `expected readout "step", got ${describe(readout)}`);
  if (segments.steps !== null && segments.steps !== recipe.steps) {
    throw misfit(bundle, `expected segments for ${recipe.steps} steps (its recipe's), got ${segments.steps}`);
  }
  if (head.link !== 'sigmoid') throw misfit(bundle, `expected link "sigmoid", got ${describe(head.link)}`);
  if (head.labels !== bundle.labels.length || head.names === undefined) {
    throw misfit(
      bundle,
      `expected ${bundle.labels.length} named labels, got ${head.labels} labels, names ${describe(head.names)}`,
    );
  }
}

/**
 * The NAFLD tables as inputs of a model.
 *
 * @param inputs one folder with people, readings and diagnoses.
 * @throws HPformerError `ERR_HPFORMER_CHECKPOINT` when recipe and model do not fit, `ERR_HPFORMER_INPUT` for other inputs.
 */
export function nafldSource(bundle: Bundle, config: HPformerConfig, inputs: readonly string[]): ScoreSource {
  const recipe = parseRecipe(bundle.features);
  checkFit(bundle, config, recipe);
  const outcomes = parseOutcomes(config.head.names!);
  const [folder] = inputs;
  if (folder === undefined || inputs.length !== 1) {
    throw new HPformerError('ERR_HPFORMER_INPUT', `inputs: expected one data folder, got ${inputs.length} paths`);
  }
  const truth = (person: Person) => outcomes.map((name) => labelOf(person, name, recipe.horizonDays));
  return {
    idColumn: 'patient',
    unit: 'people',
    group: 'matched sets',
    async *score({ batch, progress }: ReadOptions): AsyncGenerator<ScoreBatch> {
      for await (const { people, feeds } of nafldBatches(folder, recipe, { size: batch, progress })) {
        yield { ids: people.map((p) => p.id), feeds };
      }
    },
    async *labelled(part: string, { batch, progress }: ReadOptions): AsyncGenerator<LabelledBatch> {
      if (part !== 'all' && !parts.includes(part as Part)) {
        throw new HPformerError(
          'ERR_HPFORMER_INPUT',
          `part: expected ${parts.join(', ')} or all, got ${describe(part)}`,
        );
      }
      const keep = (person: Person) =>
        (part === 'all' || partOf(person.matchedSet, recipe) === part) && truth(person).some((v) => v !== undefined);
      for await (const { people, feeds } of nafldBatches(folder, recipe, {
        size: batch,
        outcomes: true,
        keep,
        progress,
      })) {
        yield {
          ids: people.map((p) => p.id),
          feeds,
          labels: people.map(truth),
          groups: people.map((p) => p.matchedSet),
        };
      }
    },
  };
}
