import { refuse, show } from './fail';
import { allowedGlobals } from './globals';
import { reduce, storageOf } from './rebuild';
import { PickleGlobal, PickleObject, type PickleValue } from './values';

const stackLimit = 100_000;
const memoLimit = 1_000_000;
/** A tensor takes eight. One of a byte or two in the file takes hundreds in memory. */
const objectLimit = 2 ** 17;
/** Strings and integers of a checkpoint's pickle are short; longer ones are refused before they are made. */
const stringLimit = 1 << 24;
const integerLimit = 64;

/** The opcodes that are understood: the binary ones of protocols 2 to 4, less everything that builds instances of arbitrary classes. */
const opcodes = {
  MARK: 0x28,
  EMPTY_TUPLE: 0x29,
  STOP: 0x2e,
  POP: 0x30,
  POP_MARK: 0x31,
  BINBYTES: 0x42,
  SHORT_BINBYTES: 0x43,
  BINFLOAT: 0x47,
  BININT: 0x4a,
  BININT1: 0x4b,
  BININT2: 0x4d,
  NONE: 0x4e,
  BINPERSID: 0x51,
  REDUCE: 0x52,
  BINSTRING: 0x54,
  SHORT_BINSTRING: 0x55,
  BINUNICODE: 0x58,
  EMPTY_LIST: 0x5d,
  APPEND: 0x61,
  BUILD: 0x62,
  GLOBAL: 0x63,
  APPENDS: 0x65,
  BINGET: 0x68,
  LONG_BINGET: 0x6a,
  LIST: 0x6c,
  BINPUT: 0x71,
  LONG_BINPUT: 0x72,
  SETITEM: 0x73,
  TUPLE: 0x74,
  SETITEMS: 0x75,
  DICT: 0x64,
  EMPTY_DICT: 0x7d,
  PROTO: 0x80,
  NEWOBJ: 0x81,
  TUPLE1: 0x85,
  TUPLE2: 0x86,
  TUPLE3: 0x87,
  NEWTRUE: 0x88,
  NEWFALSE: 0x89,
  LONG1: 0x8a,
  LONG4: 0x8b,
  SHORT_BINUNICODE: 0x8c,
  BINUNICODE8: 0x8d,
  STACK_GLOBAL: 0x93,
  MEMOIZE: 0x94,
  FRAME: 0x95,
} as const;

/**
 * A pickle machine that executes nothing: it knows the opcodes above, resolves only the globals of globals.ts, and gives
 * every one of them a fixed meaning as data. Sizes are checked against the bytes at hand before they are used, stack and
 * memo are bounded, and there is no recursion.
 */
class Machine {
  private readonly view: DataView;
  private readonly stack: PickleValue[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, PickleValue>();
  private made = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private at: number,
    private readonly where: string,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Runs to STOP. */
  run(): { value: PickleValue; end: number } {
    for (;;) {
      const at = this.at;
      const opcode = this.view.getUint8(this.take(1));
      if (opcode === opcodes.STOP) {
        const value = this.pop();
        if (this.stack.length > 0 || this.marks.length > 0) this.fail('expected one object, got more on the stack');
        return { value, end: this.at };
      }
      if (!this.constant(opcode) && !this.container(opcode) && !this.reference(opcode)) {
        this.fail(`opcode 0x${opcode.toString(16).padStart(2, '0')} at byte ${at} is not allowed`);
      }
    }
  }

  private fail(message: string): never {
    return refuse(this.where, `pickle: ${message}`);
  }

  /** Moves past `count` bytes and says where they began. */
  private take(count: number): number {
    const from = this.at;
    if (count > this.bytes.length - from)
      this.fail(`expected ${count} more bytes at ${from}, got ${this.bytes.length - from}`);
    this.at += count;
    return from;
  }

  private push(value: PickleValue): true {
    if (this.stack.length >= stackLimit) this.fail(`expected at most ${stackLimit} values on the stack`);
    this.stack.push(value);
    return true;
  }

  /** Pushes a list, a dict or another object that was made for it. */
  private make(value: PickleValue): true {
    if (++this.made > objectLimit) this.fail(`expected at most ${objectLimit} objects`);
    return this.push(value);
  }

  private pop(): PickleValue {
    // A value below the last mark belongs to what is still being collected.
    if (this.stack.length <= (this.marks.at(-1) ?? 0)) this.fail('expected a value on the stack, found none');
    return this.stack.pop()!;
  }

  private top(): PickleValue {
    if (this.stack.length <= (this.marks.at(-1) ?? 0)) this.fail('expected a value on the stack, found none');
    return this.stack.at(-1)!;
  }

  private popMark(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) this.fail('expected a mark on the stack, found none');
    return this.stack.splice(mark);
  }

  private slice(count: number): Uint8Array {
    if (count > stringLimit) this.fail(`expected a string of at most ${stringLimit} bytes, got ${count}`);
    const from = this.take(count);
    return this.bytes.subarray(from, this.at);
  }

  private text(count: number): string {
    return new TextDecoder().decode(this.slice(count));
  }

  private latin(count: number): string {
    return new TextDecoder('latin1').decode(this.slice(count));
  }

  private uint8(): number {
    return this.view.getUint8(this.take(1));
  }

  private uint32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  private uint64(): number {
    const from = this.take(8);
    return this.view.getUint32(from, true) + this.view.getUint32(from + 4, true) * 2 ** 32;
  }

  /** Two's complement, little-endian; a number where it is exact, otherwise a bigint. */
  private long(count: number): number | bigint {
    if (count > integerLimit) this.fail(`expected an integer of at most ${integerLimit} bytes, got ${count}`);
    const from = this.take(count);
    let value = 0n;
    for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.view.getUint8(from + i));
    if (count > 0) value = BigInt.asIntN(8 * count, value);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  /** Opcodes that push a value of their own. */
  private constant(opcode: number): boolean {
    switch (opcode) {
      case opcodes.NONE:
        return this.push(null);
      case opcodes.NEWTRUE:
        return this.push(true);
      case opcodes.NEWFALSE:
        return this.push(false);
      case opcodes.BININT:
        return this.push(this.view.getInt32(this.take(4), true));
      case opcodes.BININT1:
        return this.push(this.uint8());
      case opcodes.BININT2:
        return this.push(this.view.getUint16(this.take(2), true));
      case opcodes.LONG1:
        return this.push(this.long(this.uint8()));
      case opcodes.LONG4:
        return this.push(this.long(this.uint32()));
      case opcodes.BINFLOAT:
        return this.push(this.view.getFloat64(this.take(8), false));
      case opcodes.BINUNICODE:
        return this.push(this.text(this.uint32()));
      case opcodes.SHORT_BINUNICODE:
        return this.push(this.text(this.uint8()));
      case opcodes.BINUNICODE8:
        return this.push(this.text(this.uint64()));
      case opcodes.BINSTRING:
        return this.push(this.latin(this.uint32()));
      case opcodes.SHORT_BINSTRING:
        return this.push(this.latin(this.uint8()));
      case opcodes.BINBYTES:
        return this.push(this.slice(this.uint32()));
      case opcodes.SHORT_BINBYTES:
        return this.push(this.slice(this.uint8()));
      default:
        return false;
    }
  }

  /** Opcodes that build lists, tuples and dicts. */
  private container(opcode: number): boolean {
    switch (opcode) {
      case opcodes.MARK:
        if (this.marks.length >= stackLimit) this.fail(`expected at most ${stackLimit} marks`);
        this.marks.push(this.stack.length);
        return true;
      case opcodes.EMPTY_TUPLE:
      case opcodes.EMPTY_LIST:
        return this.make([]);
      case opcodes.EMPTY_DICT:
        return this.make(new Map());
      case opcodes.TUPLE:
      case opcodes.LIST:
        return this.make(this.popMark());
      case opcodes.DICT: {
        const dict = new Map();
        this.setItems(dict, this.popMark());
        return this.make(dict);
      }
      case opcodes.TUPLE1:
        return this.make([this.pop()]);
      case opcodes.TUPLE2:
        return this.make([this.pop(), this.pop()].reverse());
      case opcodes.TUPLE3:
        return this.make([this.pop(), this.pop(), this.pop()].reverse());
      case opcodes.APPEND:
        this.append([this.pop()]);
        return true;
      case opcodes.APPENDS:
        this.append(this.popMark());
        return true;
      case opcodes.SETITEM: {
        const item = [this.pop(), this.pop()].reverse();
        this.setItems(this.top(), item);
        return true;
      }
      case opcodes.SETITEMS: {
        const items = this.popMark();
        this.setItems(this.top(), items);
        return true;
      }
      case opcodes.POP:
        this.pop();
        return true;
      case opcodes.POP_MARK:
        this.popMark();
        return true;
      default:
        return false;
    }
  }

  private append(items: PickleValue[]): void {
    const list = this.top();
    if (!Array.isArray(list)) this.fail(`expected a list to append to, got ${show(list)}`);
    for (const item of items) list.push(item);
  }

  private setItems(dict: PickleValue, items: PickleValue[]): void {
    if (!(dict instanceof Map)) this.fail(`expected a dict to fill, got ${show(dict)}`);
    if (items.length % 2 !== 0) this.fail('expected keys and values in pairs');
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  }

  /** Memo, globals and what they make. */
  private reference(opcode: number): boolean {
    switch (opcode) {
      case opcodes.PROTO: {
        const version = this.uint8();
        if (version > 4) this.fail(`expected protocol 0 to 4, got ${version}`);
        return true;
      }
      case opcodes.FRAME:
        if (this.uint64() > this.bytes.length - this.at) this.fail('a frame reaches past the end');
        return true;
      case opcodes.BINPUT:
        return this.put(this.uint8());
      case opcodes.LONG_BINPUT:
        return this.put(this.uint32());
      case opcodes.MEMOIZE:
        return this.put(this.memo.size);
      case opcodes.BINGET:
        return this.get(this.uint8());
      case opcodes.LONG_BINGET:
        return this.get(this.uint32());
      case opcodes.GLOBAL:
        return this.global(this.line(), this.line());
      case opcodes.STACK_GLOBAL: {
        const [name, module] = [this.pop(), this.pop()];
        if (typeof name !== 'string' || typeof module !== 'string') this.fail('expected the name of a global');
        return this.global(module, name);
      }
      case opcodes.BINPERSID:
        return this.make(storageOf(this.where, this.pop()));
      case opcodes.REDUCE:
      case opcodes.NEWOBJ: {
        const [args, callee] = [this.pop(), this.pop()] as [PickleValue, PickleValue];
        return this.make(reduce(this.where, callee, args));
      }
      case opcodes.BUILD: {
        const state = this.pop();
        const object = this.top();
        // An ordered dict's state is `_metadata`, which no weight depends on.
        if (object instanceof PickleObject) object.state = state;
        else if (!(object instanceof Map)) this.fail(`expected an object with a state, got ${show(object)}`);
        return true;
      }
      default:
        return false;
    }
  }

  private put(index: number): true {
    if (this.memo.size >= memoLimit) this.fail(`expected at most ${memoLimit} memo entries`);
    this.memo.set(index, this.top());
    return true;
  }

  private get(index: number): true {
    const value = this.memo.get(index);
    if (value === undefined) this.fail(`expected memo entry ${index}, found none`);
    return this.push(value);
  }

  private line(): string {
    const end = this.bytes.subarray(this.at, this.at + 256).indexOf(0x0a);
    if (end < 0) this.fail('expected a line of at most 255 bytes');
    const text = this.text(end);
    this.take(1);
    return text;
  }

  private global(module: string, name: string): true {
    const full = `${module}.${name}`;
    const kind = allowedGlobals.get(full);
    if (!kind)
      this.fail(
        `${show(full)} is not allowed: a checkpoint holds tensors and plain values, and nothing in it is executed`,
      );
    return this.push(new PickleGlobal(full, kind));
  }
}

/**
 * Reads one pickle from `at`.
 *
 * @returns the object as data and the byte after STOP.
 * @throws HPformerError `ERR_HPFORMER_FILE` for anything outside the lists of opcodes and globals, and for cut or lying files.
 */
export function unpickle(bytes: Uint8Array, at: number, where: string): { value: PickleValue; end: number } {
  return new Machine(bytes, at, where).run();
}
