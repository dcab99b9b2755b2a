/** Rules that only the compiled objects can show (docs/architecture.md): what is exported, what is needed, which registers are used. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { describeUnless, notOn, root, withoutProgram } from '../skips';

const addon = join(root, 'build', 'Release', 'hpformer.node');
const compileCommands = join(root, 'build', 'compile_commands.json');
const tool = (program: string, ...args: string[]) =>
  execFileSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 30, env: { ...process.env, LC_ALL: 'C' } });

interface Unit {
  object: string;
  source: string;
  command: string;
}

/** Every C++ unit of the addon with its object file and flags. */
function units(): Unit[] {
  const entries = JSON.parse(readFileSync(compileCommands, 'utf8')) as {
    directory: string;
    command: string;
    file: string;
  }[];
  return entries
    .map(({ directory, command, file }) => ({
      object: resolve(directory, /\s-o\s+(\S+)/.exec(command)?.[1] ?? ''),
      source: relative(root, file),
      command,
    }))
    .filter(({ source, object }) => /^(binding|cuda)\//.test(source) && existsSync(object));
}

const wide = /-m(avx|fma|f16c|amx|arch=)/;
const widest = ({ command }: Unit) => (/-m(avx512|amx)/.test(command) ? 'zmm' : wide.test(command) ? 'ymm' : 'xmm');
const linux = notOn('linux');

describeUnless(linux ?? withoutProgram('objdump'), 'the addon', () => {
  test('exports the Node-API entry only', () => {
    const symbols = tool('nm', '-D', '--defined-only', addon)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(/\s+/).pop()!)
      .sort();
    expect(symbols).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });

  test('needs glibc 2.34 and libstdc++ 3.4.30 at most', () => {
    const table = tool('objdump', '-T', addon);
    const highest = (family: string) =>
      [...table.matchAll(new RegExp(`\\b${family}_([0-9.]+)`, 'g'))]
        .map((match) => match[1]!.split('.').map(Number))
        .sort((a, b) => a[0]! - b[0]! || a[1]! - b[1]! || (a[2] ?? 0) - (b[2] ?? 0))
        .pop()!;
    const [, glibc] = highest('GLIBC');
    expect(glibc).toBeLessThanOrEqual(34);
    const [major, minor, patch] = highest('GLIBCXX');
    expect([major, minor]).toEqual([3, 4]);
    expect(patch ?? 0).toBeLessThanOrEqual(30);
  });

  test('is linked to the C and C++ run time only', () => {
    const needed = [...tool('objdump', '-p', addon).matchAll(/NEEDED\s+(\S+)/g)].map((match) => match[1]!);
    const allowed = /^(lib(c|m|dl|pthread|stdc\+\+|gcc_s)\.so\.\d+|ld-linux.*)$/;
    expect(needed.filter((library) => !allowed.test(library))).toEqual([]);
  });
});

const notX64 = process.arch === 'x64' ? undefined : 'not on x64';
describeUnless(linux ?? notX64 ?? withoutProgram('objdump'), 'objects compiled for one instruction set', () => {
  test('there are such objects, of more than one level', () => {
    expect(new Set(units().map(widest)).size).toBeGreaterThan(1);
  });

  test('define no weak symbol: the linker could keep the widest copy for everybody', () => {
    const weak = units()
      .filter(({ command }) => wide.test(command))
      .flatMap(({ object, source }) =>
        tool('nm', '--defined-only', '-C', object)
          .split('\n')
          .filter((line) => /^[0-9a-f]+ [WVuw] /.test(line))
          .map((line) => `${source}: ${line}`),
      );
    expect(weak).toEqual([]);
  });

  test('use no register wider than their flags allow; all others none wider than xmm', () => {
    const order = ['xmm', 'ymm', 'zmm'];
    const offending = units().flatMap((unit) => {
      const tooWide = order.slice(order.indexOf(widest(unit)) + 1);
      if (tooWide.length === 0) return [];
      const used = new RegExp(`%(${tooWide.join('|')})\\d`).exec(
        tool('objdump', '-d', '--no-show-raw-insn', unit.object),
      );
      return used === null ? [] : [`${unit.source} uses ${used[0]}`];
    });
    expect(offending).toEqual([]);
  });
});
