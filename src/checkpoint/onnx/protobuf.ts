/**
 * The part of the protocol buffer wire format that an ONNX file needs: varints, 32-bit floats and length-delimited
 * fields (https://protobuf.dev/programming-guides/encoding). Pieces are kept as chunks and joined once, so that weights
 * are copied a single time.
 */
export class ProtoMessage {
  private readonly chunks: Uint8Array[] = [];
  private size = 0;

  private push(chunk: Uint8Array): void {
    this.chunks.push(chunk);
    this.size += chunk.length;
  }

  private key(field: number, wire: number): void {
    this.push(varint(BigInt((field << 3) | wire)));
  }

  /** int32, int64 or enum. */
  int(field: number, value: number | bigint): this {
    this.key(field, 0);
    this.push(varint(BigInt(value)));
    return this;
  }

  /** float (fixed32). */
  float(field: number, value: number): this {
    this.key(field, 5);
    this.push(new Uint8Array(new Float32Array([value]).buffer));
    return this;
  }

  /** Raw bytes; the array is read when the message is finished, not copied here. */
  bytes(field: number, value: Uint8Array): this {
    this.key(field, 2);
    this.push(varint(BigInt(value.length)));
    this.push(value);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: ProtoMessage): this {
    this.key(field, 2);
    this.push(varint(BigInt(value.size)));
    for (const chunk of value.chunks) this.push(chunk);
    return this;
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.size);
    let at = 0;
    for (const chunk of this.chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }
}

/** Base-128 varint; negative numbers as 64-bit two's complement, as int64 fields want them. */
function varint(value: bigint): Uint8Array {
  let rest = BigInt.asUintN(64, value);
  const bytes: number[] = [];
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}
