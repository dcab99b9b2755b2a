import { join } from 'node:path';
import { HPformerError } from '../errors';
import type { NativeAddon } from './addon';

let loaded: NativeAddon | undefined;

/** `glibc` and its version, or that it is another; nothing on systems where there is only one C library. */
export function libc(): string {
  if (process.platform !== 'linux') return '';
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const version = report?.header?.glibcVersionRuntime;
  return version === undefined ? 'musl or an unknown libc' : `glibc ${version}`;
}

/**
 * The native addon: `build/Release` of a checkout, else the prebuilt binary that fits this machine.
 *
 * @throws HPformerError `ERR_HPFORMER_ADDON` that names the platform and the fix.
 */
export function loadAddon(): NativeAddon {
  if (loaded !== undefined) return loaded;
  try {
    const load = require('node-gyp-build') as (root: string) => NativeAddon;
    loaded = load(join(__dirname, '..', '..'));
    return loaded;
  } catch (cause) {
    const said = cause instanceof Error ? cause.message.split('\n')[0]! : String(cause);
    const reason = said.endsWith('.') ? said : `${said}.`;
    const system = [`${process.platform}-${process.arch}`, libc()].filter((text) => text !== '').join(', ');
    const disabled = (cause as { code?: unknown } | null)?.code === 'ERR_DLOPEN_DISABLED';
    throw new HPformerError(
      'ERR_HPFORMER_ADDON',
      `addon: expected a binary for ${system}, Node-API 8 (this is ${process.release.name} ${process.version}), got: ${reason} ` +
        (disabled
          ? 'Start it without --no-addons, or with --allow-addons where the permission model is on'
          : 'To build it here (CMake >= 3.20 and a C++20 compiler): npm rebuild hpformer --foreground-scripts'),
      { cause },
    );
  }
}

/** Path of the binary that {@link loadAddon} loads on this machine, or undefined when there is none. */
export function addonPath(): string | undefined {
  try {
    return (require('node-gyp-build') as { resolve(root: string): string }).resolve(join(__dirname, '..', '..'));
  } catch {
    return undefined;
  }
}
