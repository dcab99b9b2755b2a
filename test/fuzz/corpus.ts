/**
 * Files that a search with coverage as its guide found to reach something new, one packed list for each target in corpus/. They are where
 * the next search begins, and `npm test` reads them all again. `npm run test:fuzz` with KEEP=1 writes them, minimised.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { mutate } from './mutate';
import type { FuzzTarget } from './targets';

/** Bytes that begin so are no file: they are the choices that `mutate` makes, four bytes each, over the target's own seeds. */
const choices = Buffer.from('choices:');

/** A beginning for a search among choices. */
export const someChoices = Buffer.concat([choices, Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 37) & 0xff))]);

/**
 * The file that a searcher's bytes stand for. A searcher that only knows bytes never gets a checksum, a length or a bracket right again;
 * one that changes choices moves among files in which they are.
 */
export function fileOf(target: FuzzTarget, data: Uint8Array): Uint8Array {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  if (!bytes.subarray(0, choices.length).equals(choices)) return Uint8Array.from(data);
  let at = choices.length;
  const random = () => {
    const value = at + 4 <= bytes.length ? bytes.readUInt32LE(at) : 0;
    at += 4;
    return value;
  };
  const seeds = target.seeds();
  let file = seeds[random() % seeds.length]!;
  for (let changes = 0; changes < 8 && at < bytes.length; changes++) file = mutate(file, random);
  return file;
}

const packed = (folder: string, name: string) => join(folder, `${name}.json.gz`);

/** What is kept for a target. */
export function kept(folder: string, name: string): Uint8Array[] {
  if (!existsSync(packed(folder, name))) return [];
  const list = JSON.parse(gunzipSync(readFileSync(packed(folder, name))).toString()) as string[];
  return list.map((text) => new Uint8Array(Buffer.from(text, 'base64')));
}

/** Packs the files of `from`, the small ones first and at most `bytes` of them in all. Answers how many. */
export function keep(folder: string, name: string, from: string, bytes = 40_000): number {
  const files = readdirSync(from)
    .map((file) => readFileSync(join(from, file)))
    .sort((a, b) => a.length - b.length || Buffer.compare(a, b));
  let left = bytes;
  const chosen = files.filter((file) => {
    left -= file.length;
    return left >= 0;
  });
  mkdirSync(folder, { recursive: true });
  const list = JSON.stringify(chosen.map((file) => file.toString('base64')));
  writeFileSync(packed(folder, name), gzipSync(list, { level: 9 }));
  return chosen.length;
}
