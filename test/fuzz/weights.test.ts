/** Weights and what is in them: a minute each, see search.ts. */
import { searchByTheClock } from './search';

searchByTheClock('safetensors', 'torch', 'bundle');
