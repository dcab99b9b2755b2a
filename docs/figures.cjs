// Draws the figures of the documents: the paper's ideas, drawn by us. Written and compared together with the tables of readme.cjs.
'use strict';

const hues = ['a', 'b', 'c', 'd'];
/** Colours by class; a reader in the dark gets the second of each. Renderers without media queries show the first. */
const palette = {
  paper: ['#ffffff', '#14191f'],
  ink: ['#1d2733', '#e4eaf0'],
  dim: ['#56677a', '#9fb0c0'],
  line: ['#41566b', '#8ea4b8'],
  box: ['#f7f9fb', '#1e2730'],
  a: ['#cfe3f5', '#24557f'],
  b: ['#d9ecd2', '#33602a'],
  c: ['#f8e3c2', '#7a5a1c'],
  d: ['#ecd5ea', '#6d3a69'],
  key: ['#f4c7c3', '#7c2d26'],
  share: ['#a23b34', '#f08a80'],
};
const styleOf = (mode) => {
  const of = (name) => palette[name][mode];
  const fills = ['paper', 'box', ...hues, 'key'].map((name) => `.${name}{fill:${of(name)}}`).join('');
  return (
    `${fills}text{fill:${of('ink')}}.dim{fill:${of('dim')}}.edge,.arrow,.box,.cell{stroke:${of('line')}}.key,.share{stroke:${of('share')}}` +
    `.head{fill:${of('line')}}.redhead,.red{fill:${of('share')}}`
  );
};

function svg(width, height, label, body) {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="Helvetica, Arial, sans-serif" font-size="13" role="img" aria-label="${label}">
<style>.edge,.arrow,.share{fill:none;stroke-width:1.4}.share{stroke-width:1.7}.box{stroke-width:1.2}.cell{stroke-width:.5}.key{stroke-width:1.5}.arrow{marker-end:url(#head)}.share{marker-end:url(#red)}.plain{marker-end:none}.dash{stroke-dasharray:5 4}
${styleOf(0)}
@media (prefers-color-scheme:dark){${styleOf(1)}}</style>
<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"><path class="head" d="M0,0 L7,3 L0,6 z"/></marker><marker id="red" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"><path class="redhead" d="M0,0 L7,3 L0,6 z"/></marker></defs>
<rect class="paper" width="${width}" height="${height}" rx="6"/>
${body.flat(9).join('\n')}
</svg>
`;
}
const rect = (x, y, w, h, kind, round = 0) =>
  `<rect class="${kind}" x="${x}" y="${y}" width="${w}" height="${h}" rx="${round}"/>`;
const text = (x, y, words, { kind = '', size = 13, anchor = 'start', bold = false } = {}) =>
  `<text x="${x}" y="${y}"${kind && ` class="${kind}"`} font-size="${size}" text-anchor="${anchor}"${bold ? ' font-weight="bold"' : ''}>${words}</text>`;
const note = (x, y, words, anchor = 'start') => text(x, y, words, { kind: 'dim', size: 12, anchor });
const path = (kind, d) => `<path class="${kind}" d="${d}"/>`;
/** A named box; its second line in small letters. */
const box = (x, y, w, h, name, more, kind = 'box') => [
  rect(x, y, w, h, kind, 5),
  text(x + w / 2, y + (more ? h / 2 - 3 : h / 2 + 5), name, { anchor: 'middle' }),
  more ? note(x + w / 2, y + h / 2 + 13, more, 'middle') : [],
];
/** A strip of `count` steps in four colours, with room between segments. */
const strip = (x, y, size, height, count, room = 0) =>
  Array.from({ length: count }, (_, i) => {
    const segment = Math.floor((4 * i) / count);
    return rect(x + i * size + segment * room, y, size, height, `cell ${hues[segment]}`);
  });

/** The whole model: keys made once, shared by all layers. */
function overview() {
  const [trunk, bus] = [226, 500];
  return svg(
    980,
    470,
    'The model: a sequence is embedded; TDHP makes the compressed keys once; every layer attends to the same keys; readout and head',
    [
      text(24, 34, 'one sequence of L steps', { bold: true }),
      strip(24, 46, 13, 26, 12, 6),
      path('arrow', 'M112 74 V98'),
      box(24, 102, 176, 40, 'embedding', 'features, tokens or values'),
      path('arrow', 'M112 142 V158'),
      box(24, 162, 176, 40, '+ positions', 'perhaps a norm'),
      path('arrow plain', `M200 182 H${trunk} V22`),
      path('arrow', `M${trunk} 22 H630 V66`),
      note(424, 16, 'each step by itself', 'middle'),
      path('arrow', `M${trunk} 92 H256`),
      path('arrow', `M${trunk} 182 V232 H256`),
      rect(244, 40, 236, 296, 'edge dash', 8),
      text(362, 60, 'TDHP, once for a sequence', { anchor: 'middle', bold: true }),
      box(260, 72, 204, 40, 'segments, pooled', 'S rows, S about ln L'),
      path('arrow', 'M362 112 V138'),
      box(260, 142, 204, 40, 'extra-segment attention', 'segments look at each other'),
      path('arrow', 'M362 182 V208'),
      box(260, 212, 204, 40, 'intra-segment attention', 'each reads its own steps'),
      path('arrow', 'M362 252 V278'),
      box(260, 282, 204, 40, 'fusion', 'far and near in one row'),
      path('arrow', 'M362 322 V356'),
      rect(260, 360, 204, 44, 'key', 5),
      text(362, 387, 'K_comp = V_comp (S × d)', { anchor: 'middle', bold: true }),
      path('share', `M464 382 H${bus} V92 H540`),
      path('share', `M${bus} 162 H540`),
      path('share', `M${bus} 272 H540`),
      text(362, 426, 'the same keys for all layers', { kind: 'red', anchor: 'middle' }),
      box(546, 70, 168, 44, 'HPformer layer 0'),
      path('arrow', 'M630 114 V136'),
      box(546, 140, 168, 44, 'HPformer layer 1'),
      path('arrow plain', 'M630 184 V200'),
      text(630, 224, '⋮', { anchor: 'middle', size: 18 }),
      path('arrow', 'M630 232 V246'),
      box(546, 250, 168, 44, 'HPformer layer N − 1'),
      path('arrow', 'M630 294 V314'),
      box(546, 318, 168, 40, 'readout', 'one step, all, or mean'),
      path('arrow', 'M630 358 V412'),
      box(546, 416, 168, 36, 'head: labels'),
      path('edge dash', 'M714 162 L772 226'),
      rect(772, 40, 190, 372, 'edge dash', 8),
      text(867, 60, 'one layer, one step x', { anchor: 'middle', bold: true }),
      box(788, 72, 158, 44, 'attention, H heads', 'x against S keys'),
      path('share', 'M728 94 H784'),
      text(742, 84, 'keys', { kind: 'red', size: 12, anchor: 'middle' }),
      path('arrow', 'M867 116 V136'),
      box(788, 140, 158, 40, 'output projection'),
      path('arrow', 'M867 180 V200'),
      box(788, 204, 158, 40, '+ x, then norm'),
      path('arrow', 'M867 244 V264'),
      box(788, 268, 158, 40, 'linear, activation'),
      path('arrow', 'M867 308 V328'),
      box(788, 332, 158, 40, '+, then norm'),
      note(867, 396, 'no other step is looked at', 'middle'),
    ],
  );
}

/** Who looks at whom: full attention, and the three kinds of scores that take its place. */
function propagation() {
  const [count, size] = [24, 9];
  const side = count * size;
  const b = count / 4;
  const hue = (i) => hues[Math.floor((4 * i) / count)];
  const grid = (x, y, rows, columns, w, h, kindOf) =>
    Array.from({ length: rows * columns }, (_, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      return rect(x + column * w, y + row * h, w, h, `cell ${kindOf(row, column)}`);
    });
  const title = (x, name, more) => [text(x, 30, name, { bold: true }), note(x, 48, more)];
  const [x1, x2, x3, x4] = [40, 310, 500, 770];
  return svg(
    920,
    340,
    'Scores of full attention beside those of HPformer: extra-segment, intra-segment, and each step against the compressed keys',
    [
      title(x1, 'full attention', 'every step with every step, in each layer'),
      strip(x1, 58, size, 8, count),
      grid(x1, 70, count, count, size, size, (row) => hue(row)),
      text(x1, 312, `L² = ${count * count} scores`),
      title(x2, 'extra-segment', 'pooled segments, once'),
      grid(x2, 70, 4, 4, 27, 27, (row) => hues[row]),
      hues.map((_, s) => [
        note(x2 + 27 * s + 13, 64, `m${'₁₂₃₄'[s]}`, 'middle'),
        note(x2 + 116, 88 + 27 * s, `E${'₁₂₃₄'[s]}`),
      ]),
      path('arrow', `M${x2 + 142} 124 H${x3 - 28}`),
      text(x2, 200, 'S² = 16 scores'),
      note(x2, 224, 'far: how a part of time'),
      note(x2, 240, 'relates to all others'),
      title(x3, 'intra-segment', 'each reads its own steps, once'),
      strip(x3, 58, size, 8, count),
      grid(x3, 70, 4, count, size, 27, (row, column) => (Math.floor(column / b) === row ? hues[row] : 'box')),
      hues.map((_, s) => note(x3 - 20, 88 + 27 * s, `E${'₁₂₃₄'[s]}`)),
      text(x3, 200, `L = ${count} scores`),
      note(x3, 224, 'near: steps, asked by a row that'),
      note(x3, 240, 'has already seen the others'),
      path('share', `M${x3 + side + 6} 124 H${x4 - 8}`),
      text((x3 + side + x4) / 2 - 2, 116, 'fusion', { kind: 'red', size: 12, anchor: 'middle' }),
      title(x4, 'each layer', 'every step with S keys'),
      hues.map((_, s) => note(x4 + 20 * s + 10, 64, `k${'₁₂₃₄'[s]}`, 'middle')),
      grid(x4, 70, count, 4, 20, size, (_, column) => hues[column]),
      text(x4, 312, `L · S = ${count * 4} scores`),
      note(x2, 312, `L = ${count} steps, S = 4 segments of b = ${b}; a coloured cell is one score`),
    ],
  );
}

/** S of the published rule for L steps (docs/concepts.md, "How many segments"). */
function segmentsOf(steps) {
  const wanted = Math.floor(Math.log(steps)) + 1;
  const length = Math.floor(steps / wanted);
  return steps % wanted === 0 ? wanted : Math.floor(steps / length) + 1;
}

/** Scores of a model of six layers by length, on two logarithmic axes. Counted, not measured. */
function complexity() {
  const layers = 6;
  const lengths = Array.from({ length: 11 }, (_, i) => 2 ** (6 + i));
  const lines = [
    ['every step with every step', 'N L²', (L) => layers * L * L, 'a'],
    ['two patterns of √L (sparse)', '2 N L √L', (L) => layers * 2 * L * Math.sqrt(L), 'd'],
    ['a window of 256 on either side', 'N L · 513', (L) => layers * L * Math.min(L, 513), 'c'],
    ['HPformer', 'N L S + S² + L', (L) => layers * L * segmentsOf(L) + segmentsOf(L) ** 2 + L, 'key'],
  ];
  const [left, top, width, height] = [74, 40, 420, 300];
  const [low, high] = [Math.log10(1e3), Math.log10(1e11)];
  const x = (L) => left + (width * (Math.log2(L) - 6)) / 10;
  const y = (value) => top + height * (1 - (Math.log10(value) - low) / (high - low));
  const number = (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(1)} · 10⁹` : `${(value / 1e6).toFixed(1)} · 10⁶`);
  const at = 65536;
  const style = `<style>${lines.map(([, , , hue]) => `.l${hue}{fill:none;stroke-width:2.6;stroke:${palette[hue === 'key' ? 'share' : hue][hue === 'key' ? 0 : 1]}}`).join('')}@media (prefers-color-scheme:dark){${lines
    .map(([, , , hue]) => `.l${hue}{stroke:${palette[hue === 'key' ? 'share' : hue][hue === 'key' ? 1 : 0]}}`)
    .join('')}}</style>`;
  return svg(
    860,
    400,
    'Scores that a model of six layers computes, by length: full attention grows with the square, HPformer with L ln L',
    [
      style,
      text(left, 24, 'scores for one sequence, 6 layers', { bold: true }),
      Array.from({ length: 9 }, (_, i) => [
        path('edge grid', `M${left} ${y(10 ** (3 + i))} H${left + width}`),
        note(left - 8, y(10 ** (3 + i)) + 4, `10${['³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹', '¹⁰', '¹¹'][i]}`, 'end'),
      ]),
      lengths
        .filter((_, i) => i % 2 === 0)
        .map((L) => note(x(L), top + height + 20, L.toLocaleString('en-US'), 'middle')),
      note(left + width / 2, top + height + 42, 'steps L', 'middle'),
      '<style>.grid{stroke-width:.4}</style>',
      lines.map(([, , count, hue]) =>
        path(
          `l${hue}`,
          lengths.map((L, i) => `${i === 0 ? 'M' : 'L'}${x(L).toFixed(1)} ${y(count(L)).toFixed(1)}`).join(' '),
        ),
      ),
      lines.map(([name, formula, count, hue], i) => {
        const line = 64 + 70 * i;
        return [
          path(`l${hue}`, `M530 ${line - 4} H560`),
          text(570, line, name, { bold: hue === 'key' }),
          note(570, line + 18, `${formula}; at ${at.toLocaleString('en-US')}: ${number(count(at))}`),
        ];
      }),
      note(530, 344, `S = ${segmentsOf(at)} at ${at.toLocaleString('en-US')} steps. Other products grow`),
      note(530, 360, 'with L in all of them. Times: efficiency.md'),
    ],
  );
}

module.exports = {
  figures: () => [
    { file: 'docs/overview.svg', text: overview() },
    { file: 'docs/propagation.svg', text: propagation() },
    { file: 'docs/complexity.svg', text: complexity() },
  ],
};
