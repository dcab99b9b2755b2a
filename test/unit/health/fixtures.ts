import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(__dirname, '../../fixtures/health');

export function fixtureText(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

export function fixtureJson<T>(path: string): T {
  return JSON.parse(fixtureText(path)) as T;
}

/** Reads a float64 C-order NumPy file. */
export function fixtureNpy(path: string): { data: Float64Array; dims: number[] } {
  const bytes = readFileSync(join(root, path));
  const header = bytes.toString('latin1', 10, 10 + bytes.readUInt16LE(8));
  if (!header.includes("'<f8'") || !header.includes("'fortran_order': False")) throw new Error(`unexpected ${header}`);
  const dims = /\(([^)]*)\)/
    .exec(header)![1]!
    .split(',')
    .filter((d) => d.trim() !== '')
    .map(Number);
  const body = bytes.subarray(10 + bytes.readUInt16LE(8));
  return { data: new Float64Array(body.buffer.slice(body.byteOffset, body.byteOffset + body.length)), dims };
}

/** List-file lines grouped by stay. */
export function samplesByStay(path: string): Map<string, { hours: number; label: number }[]> {
  const out = new Map<string, { hours: number; label: number }[]>();
  for (const line of fixtureText(path).trim().split('\n').slice(1)) {
    const [stay, hours, label] = line.split(',') as [string, string, string];
    const list = out.get(stay) ?? [];
    list.push({ hours: Number(hours), label: Number(label) });
    out.set(stay, list);
  }
  return out;
}

/** True when two float64 arrays have the same bits. */
export function sameBits(a: Float64Array, b: Float64Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
}
