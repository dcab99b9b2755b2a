/** Seeded mutation of bytes: raw, and aware of lengths, headers and numbers in text. */

/** xorshift32: small, the same on every platform. */
export function generator(seed: number): () => number {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

const numbers = [
  '0',
  '-1',
  '1e308',
  '1e999',
  '-0',
  '9007199254740993',
  '2147483648',
  '4294967296',
  'NaN',
  '""',
  'null',
  '[]',
  '{}',
  'true',
];
const boundaries = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x7fffffffffffffffn,
  0xffffffffffffffffn,
];

/** The header of a safetensors file changed and its length set right again, so that the change is seen. */
function mutateHeader(bytes: Uint8Array, random: () => number): Uint8Array | undefined {
  if (bytes.length < 10 || bytes[8] !== 0x7b) return undefined;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > bytes.length - 8) return undefined;
  const header = Buffer.from(bytes.subarray(8, 8 + length)).toString('latin1');
  const changed = Buffer.from(mutateText(header, random), 'latin1');
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(changed.length));
  return Buffer.concat([size, changed, bytes.subarray(8 + length)]);
}

function mutateText(text: string, random: () => number): string {
  const tokens = [...text.matchAll(/-?\d+(\.\d+)?|"[^"]*"|[A-Za-z_]+/g)];
  const token = tokens[random() % Math.max(1, tokens.length)];
  if (token === undefined) return text;
  const other = tokens[random() % tokens.length]![0];
  const replacement = [numbers[random() % numbers.length]!, other, '', token[0] + token[0], `${token[0]},${other}`][
    random() % 5
  ]!;
  return text.slice(0, token.index) + replacement + text.slice(token.index + token[0].length);
}

/** One mutated copy. */
export function mutate(seed: Uint8Array, random: () => number): Uint8Array {
  const aware = random() % 3 === 0 ? mutateHeader(seed, random) : undefined;
  if (aware) return aware;
  if (random() % 3 === 0 && seed.length < 100_000 && !seed.includes(0)) {
    return Buffer.from(mutateText(Buffer.from(seed).toString('latin1'), random), 'latin1');
  }
  const bytes = Uint8Array.from(seed);
  const at = () => random() % Math.max(1, bytes.length);
  // Headers, directories and pickles stand at the ends: half of the changes go there.
  const near = () =>
    random() % 2 === 0 ? at() : random() % 2 === 0 ? at() % 512 : Math.max(0, bytes.length - 1 - (at() % 512));
  for (let changes = 1 + (random() % 4); changes > 0; changes--) {
    switch (random() % 5) {
      case 0:
        bytes[near()] = random() & 0xff;
        break;
      case 1:
        bytes[near()]! ^= 1 << (random() % 8);
        break;
      case 2: {
        const where = near();
        const width = [1, 2, 4, 8][random() % 4]!;
        const value = boundaries[random() % boundaries.length]!;
        for (let i = 0; i < width && where + i < bytes.length; i++)
          bytes[where + i] = Number((value >> BigInt(8 * i)) & 0xffn);
        break;
      }
      case 3:
        return bytes.subarray(0, near());
      default: {
        const [from, to] = [at(), near()];
        bytes.copyWithin(to, from, from + (random() % 64));
      }
    }
  }
  return bytes;
}
