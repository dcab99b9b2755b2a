const bits32 = new Uint32Array(1);
const value32 = new Float32Array(bits32.buffer);

/** The exact value of one IEEE half-precision bit pattern. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The exact value of one bfloat16 bit pattern. */
export function fromBfloat16(bits: number): number {
  bits32[0] = bits << 16;
  return value32[0]!;
}
