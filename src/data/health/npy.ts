import { type FileHandle, open } from 'node:fs/promises';
import { fileError, Unfinished } from '../../files';

const types = { float32: '<f4', float64: '<f8', int32: '<i4', uint8: '|u1' } as const;
/** Bytes before the first row. */
export const npyHeaderBytes = 128;
const gatherBytes = 1 << 20;

/** Element types that are written. */
export type NpyType = keyof typeof types;

/**
 * Writes a NumPy 1.0 file row by row: the first dimension grows, the header is completed at the end, when the file
 * appears under its name. It holds a megabyte at most.
 */
export class NpyWriter {
  private rows = 0;
  private readonly gathered = Buffer.allocUnsafe(gatherBytes);
  private bytes = 0;

  private constructor(
    private readonly file: FileHandle,
    private readonly begun: Unfinished,
    private readonly type: NpyType,
    private readonly rowDims: readonly number[],
  ) {}

  /** @param rowDims dims of one row; empty for a list of numbers. @throws HPformerError `ERR_HPFORMER_FILE`. */
  static async create(path: string, type: NpyType, rowDims: readonly number[]): Promise<NpyWriter> {
    const begun = new Unfinished(path);
    let file: FileHandle | undefined;
    try {
      file = await open(begun.temporary, 'wx');
      await file.writeFile(Buffer.alloc(npyHeaderBytes, 0x20));
      return new NpyWriter(file, begun, type, rowDims);
    } catch (cause) {
      await file?.close().catch(() => undefined);
      await begun.drop();
      throw fileError(path, 'written', cause);
    }
  }

  /** Appends rows. @throws HPformerError `ERR_HPFORMER_FILE`. */
  async write(data: Float32Array | Float64Array | Int32Array | Uint8Array, rows: number): Promise<void> {
    this.rows += rows;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    if (this.bytes + bytes.length > gatherBytes) await this.flush();
    if (bytes.length > gatherBytes) await this.put(bytes);
    else this.bytes += bytes.copy(this.gathered, this.bytes);
  }

  private async flush(): Promise<void> {
    const { bytes } = this;
    this.bytes = 0;
    if (bytes > 0) await this.put(this.gathered.subarray(0, bytes));
  }

  private async put(bytes: Buffer): Promise<void> {
    try {
      await this.file.writeFile(bytes);
    } catch (cause) {
      throw fileError(this.begun.target, 'written', cause);
    }
  }

  /** Completes the file and closes it. @throws HPformerError `ERR_HPFORMER_FILE`; {@link abandon} is due then. */
  async end(): Promise<void> {
    await this.flush();
    const shape = [this.rows, ...this.rowDims].join(', ');
    const text = `{'descr': '${types[this.type]}', 'fortran_order': False, 'shape': (${shape}${this.rowDims.length === 0 ? ',' : ''}), }`;
    const header = Buffer.alloc(npyHeaderBytes, 0x20);
    header.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
    header.writeUInt16LE(npyHeaderBytes - 10, 8);
    header.write(text, 10, 'latin1');
    header[npyHeaderBytes - 1] = 0x0a;
    try {
      for (let done = 0; done < npyHeaderBytes; )
        done += (await this.file.write(header, done, npyHeaderBytes - done, done)).bytesWritten;
      await this.file.close();
      await this.begun.keep();
    } catch (cause) {
      throw fileError(this.begun.target, 'written', cause);
    }
  }

  /** Closes the file and removes it, unless it is complete. */
  async abandon(): Promise<void> {
    await this.file.close().catch(() => undefined);
    await this.begun.drop();
  }
}
