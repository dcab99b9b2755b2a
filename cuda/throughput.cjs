#!/usr/bin/env node
// Modelled throughput on two devices from counted work: a kernel takes as long as its slowest limit, a batch as long as its
// kernels one after the other, with enough batches in flight to fill the device. A model, not a measurement.
//
//   node cuda/counters.cjs --json | node cuda/throughput.cjs
'use strict';
const { readFileSync } = require('node:fs');

/**
 * Datasheet figures, dense rates at boost clock. `mmaShare`: the assumed part of the tensor-core peak that mma.sync reaches
 * (all of it on A100; on H100 the full rate needs wgmma, and 62 % is assumed). `l2`: bytes per clock of the whole device (A100
 * white paper; the same is assumed for H100). `bus`: PCIe x16 of the device's generation, one direction.
 */
const profiles = [
  {
    name: 'A100 SXM 80 GB',
    multiprocessors: 108,
    clock: 1.41e9,
    dram: 2.039e12,
    fp32: 19.5e12,
    bf16: 312e12,
    tf32: 156e12,
    mmaShare: 1,
    l2: 5120,
    bus: 31.5e9,
  },
  {
    name: 'H100 SXM',
    multiprocessors: 132,
    clock: 1.83e9,
    dram: 3.35e12,
    fp32: 66.9e12,
    bf16: 989e12,
    tf32: 494.5e12,
    mmaShare: 0.62,
    l2: 5120,
    bus: 63e9,
  },
];

const limitNames = ['mma', 'fp32', 'shared', 'issue', 'L2', 'DRAM'];

/** Seconds that each resource needs for a kernel's counted work on a device all of whose multiprocessors are busy. */
function limits(kernel, p) {
  const cycles = p.clock * p.multiprocessors;
  return {
    mma: (kernel.mmaBf16Flops / p.bf16 + kernel.mmaTf32Flops / p.tf32) / p.mmaShare,
    fp32: kernel.fp32Flops / p.fp32,
    shared: kernel.sharedWavefronts / cycles,
    issue: kernel.warpInstructions / (4 * cycles),
    L2: kernel.sectorBytes / (p.l2 * p.clock),
    DRAM: kernel.uniqueBytes / p.dram,
  };
}

/** Sequences per second of one counted row on one device: by each limit alone, together, and over the bus. */
function throughput(row, p) {
  const kernels = Object.values(row.kernels).map((kernel) => limits(kernel, p));
  const alone = Object.fromEntries(
    limitNames.map((name) => [name, row.batch / kernels.reduce((sum, each) => sum + each[name], 0)]),
  );
  const seconds = kernels.reduce((sum, each) => sum + Math.max(...Object.values(each)), 0);
  const binds = limitNames.reduce((least, name) => (alone[name] < alone[least] ? name : least));
  const bytes = Math.max(row.inputBytes, row.resultBytes); // both directions at once
  return { alone, together: row.batch / seconds, binds, bus: (row.batch * p.bus) / bytes };
}

/** `12.3 M`: three digits and a unit. */
function rate(value) {
  if (!Number.isFinite(value)) return '–';
  const [size, unit] = value >= 1e6 ? [1e6, 'M'] : [1e3, 'k'];
  return `${Number((value / size).toPrecision(3))} ${unit}`;
}

/** Markdown table of the fused rows on both devices, sequences per second. */
function table(rows) {
  const head = ['model, device', 'precision', ...limitNames, '**modelled**', 'binds', 'bus alone'];
  const body = rows
    .filter((row) => row.path === 'fused')
    .flatMap((row) =>
      profiles.map((p) => {
        const { alone, together, binds, bus } = throughput(row, p);
        const name = `${row.name}, ${p.name}`;
        return [
          name,
          row.precision,
          ...limitNames.map((each) => rate(alone[each])),
          `**${rate(together)}**`,
          binds,
          rate(bus),
        ];
      }),
    );
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

module.exports = { limits, profiles, table, throughput };

if (require.main === module) console.log(table(JSON.parse(readFileSync(0, 'utf8'))));
