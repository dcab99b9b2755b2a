/** Configurations, tables and names in exported graphs: a minute each, see search.ts. */
import { searchByTheClock } from './search';

searchByTheClock('config', 'csv', 'onnx');
