/**
 * hpformer: HPformer models on the CPU and on CUDA, from typed TypeScript.
 * Everything exported here is the public API; nothing else is.
 */

export { presets } from './config/presets';
export type { Activation, HPformerConfig } from './config/types';
export { errorCodes, HPformerError, type HPformerErrorCode } from './errors';
export { devices } from './model/devices';
export type { GraphEdge, GraphNode, ModelGraph } from './model/graph';
export { HPformer } from './model/hpformer';
export { kernels } from './model/kernels';
export type { Plan, PlanJSON, PlanNode, PlanRewrite } from './model/plan';
export type {
  BareArray,
  CreateOptions,
  DefaultOutput,
  DeviceInfo,
  DeviceRequest,
  Feeds,
  FeedValue,
  LoadOptions,
  ModelOptions,
  OutputName,
  ParameterCount,
  PlanShape,
  Precision,
  RealTensor,
  Results,
  RewriteName,
  RunOptions,
  RunSyncOptions,
  Shape,
  StreamOptions,
} from './model/types';
export { Tensor, type TensorData, type TensorDataMap, type TensorLike, type TensorType } from './tensor/tensor';
