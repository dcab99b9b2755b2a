import type { ElementType } from '../tensors';

/** What the unpickler makes. Lists and tuples are arrays, dicts are Maps; nothing here has behaviour of its own. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | Map<unknown, unknown>
  | PickleGlobal
  | PickleObject
  | StorageRef
  | TensorRef;

/** A global of the allow-list, by name only. */
export class PickleGlobal {
  constructor(
    readonly name: string,
    readonly kind: GlobalKind,
  ) {}

  get show(): string {
    return `the class or function ${this.name}`;
  }
}

/** An object of an inert class: its arguments and state are kept as data. */
export class PickleObject {
  state: PickleValue = null;
  constructor(
    readonly className: string,
    readonly args: PickleValue[],
  ) {}

  get show(): string {
    return `an object ${this.className}`;
  }
}

/** A storage: raw elements somewhere in the file. */
export class StorageRef {
  constructor(
    readonly type: ElementType,
    readonly key: string,
    /** Elements of the whole storage. */
    readonly count: number,
    /** Legacy views: first element of this view in the storage. */
    readonly offset: number,
  ) {}

  get show(): string {
    return `a storage of ${this.count} ${this.type}`;
  }
}

/** A tensor over a storage; offset and strides in elements. */
export class TensorRef {
  constructor(
    readonly storage: StorageRef,
    readonly offset: number,
    readonly dims: number[],
    readonly strides: number[],
  ) {}

  get show(): string {
    return `a tensor [${this.dims.join(', ')}]`;
  }
}

/** What may be done with a global: how REDUCE treats it. */
export type GlobalKind =
  | { does: 'dict' }
  | { does: 'tensor' }
  | { does: 'parameter' }
  | { does: 'inert' }
  | { does: 'storage'; type: ElementType };
