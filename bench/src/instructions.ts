/** Instructions of one run by kind: executed counts by address (valgrind's callgrind) over the program's disassembly (objdump). */

/** Executed instructions. */
export interface InstructionCounts {
  all: number;
  /** Multiplications and multiply-adds on vector registers. */
  multiply: number;
  /** Every other vector instruction that computes: additions, maxima, conversions, shuffles … Moves, loads and stores are none. */
  other: number;
}

/** What kind of instruction a line of `objdump -d` shows. Scalar floating point counts too: it runs on the same units. */
export function kindOf(mnemonic: string, operands: string): 'multiply' | 'other' | 'none' {
  if (!/%[xyz]mm/.test(operands)) return 'none';
  if (/^v?fn?m(add|sub)|^v?mul[ps][sd]$/.test(mnemonic)) return 'multiply';
  // Loads and stores, moves between registers, loads that repeat a value.
  if (/^v?mov|^v?lddqu$|^vmaskmov|^vzero/.test(mnemonic)) return 'none';
  if (/broadcast|^v?(p?insert|p?extract)/.test(mnemonic) && operands.includes('(')) return 'none';
  return 'other';
}

/** Kind of every instruction by its address. */
export function disassembly(objdump: string): Map<number, 'multiply' | 'other' | 'none'> {
  const kinds = new Map<number, 'multiply' | 'other' | 'none'>();
  for (const [, address, mnemonic, operands] of objdump.matchAll(/^ *([0-9a-f]+):\t(\S+)(?: +(.*))?$/gm))
    kinds.set(Number.parseInt(address!, 16), kindOf(mnemonic!, operands ?? ''));
  return kinds;
}

/**
 * Counts of a callgrind file written with `--dump-instr=yes --compress-pos=no --compress-strings=no`: costs of the instructions
 * themselves, not of what they call. Instructions of other objects (the C library) count as `other` and `multiply` never.
 */
export function countKinds(
  callgrind: string,
  program: string,
  kinds: ReadonlyMap<number, 'multiply' | 'other' | 'none'>,
): InstructionCounts {
  const counts: InstructionCounts = { all: 0, multiply: 0, other: 0 };
  let own = false;
  let called = false;
  for (const line of callgrind.split('\n')) {
    if (line.startsWith('ob=')) own = line.endsWith(`/${program}`);
    if (line.startsWith('calls=')) {
      called = true; // the next line is the inclusive cost of what was called
      continue;
    }
    const cost = /^0x([0-9a-f]+) \S+ (\d+)$/.exec(line);
    if (!cost) continue;
    if (called) {
      called = false;
      continue;
    }
    const times = Number(cost[2]);
    counts.all += times;
    const kind = own ? kinds.get(Number.parseInt(cost[1]!, 16)) : undefined;
    if (kind === 'multiply' || kind === 'other') counts[kind] += times;
  }
  return counts;
}

/** Instructions of a level per nanosecond on one core. */
export interface Rates {
  multiplyRate: number;
  addRate: number;
  bothRate: number;
}

/**
 * Milliseconds that these counts take at least: multiplications and the other vector instructions at their own rates, and all of them
 * together at the rate of a mixture.
 */
export function boundOf({ multiply, other }: Omit<InstructionCounts, 'all'>, rates: Rates): number {
  const { multiplyRate, addRate, bothRate } = rates;
  return Math.max(multiply / multiplyRate, other / addRate, (multiply + other) / bothRate) / 1e6;
}
