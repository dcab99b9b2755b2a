export { makeBatch, type NafldBatch, type NafldBatchOptions, nafldBatches } from './batches';
export { isUsable, labelOf, type OutcomeName, type Part, parseOutcomes, partOf, parts } from './cohort';
export { type Outcome, type Person, type Reading, readPeople } from './people';
export { bodyMeasures, events, type NafldRecipe, parseRecipe, type ScaledChannel, type Scaling, tests } from './recipe';
export { writeSequence } from './sequence';
