import { escapeHtml } from './charts';
import { attentionNotice, checkExplanation, type Explanation, spanName } from './explain';

/** One block of cells with names. */
interface Block {
  title: string;
  rows: { name: string; cells: { value: number; hint: string }[] }[];
  columns: string[];
}

/** One value a row, below zero to the left and above it to the right of a middle line. */
interface Bars {
  title: string;
  rows: { name: string; value: number; hint: string }[];
}

const cellHeight = 16;
const labelWidth = 215;
const chartWidth = 760;

function draw(block: Block, top: number): { svg: string; height: number } {
  const columns = Math.max(1, block.rows[0]?.cells.length ?? 1);
  const cellWidth = (chartWidth - labelWidth) / columns;
  const most = Math.max(1e-12, ...block.rows.flatMap((r) => r.cells.map((c) => Math.abs(c.value))));
  const parts = [`<text class="title" x="0" y="${top + 14}">${escapeHtml(block.title)}</text>`];
  const head = top + 34;
  block.columns.forEach((name, c) => {
    if (name !== '') {
      parts.push(
        `<text x="${(labelWidth + (c + 0.5) * cellWidth).toFixed(1)}" y="${head - 5}" text-anchor="middle">${escapeHtml(name)}</text>`,
      );
    }
  });
  block.rows.forEach(({ name, cells }, r) => {
    const y = head + r * cellHeight;
    parts.push(`<text x="${labelWidth - 8}" y="${y + 12}" text-anchor="end">${escapeHtml(name)}</text>`);
    cells.forEach(({ value, hint }, c) => {
      const opacity = Math.min(1, Math.abs(value) / most).toFixed(3);
      parts.push(
        `<rect class="up" fill-opacity="${opacity}" x="${(labelWidth + c * cellWidth).toFixed(1)}" y="${y}" width="${Math.max(1, cellWidth - 1).toFixed(1)}" height="${cellHeight - 1}"><title>${escapeHtml(hint)}</title></rect>`,
      );
    });
  });
  return { svg: parts.join(''), height: 34 + block.rows.length * cellHeight + 18 };
}

function drawBars({ title, rows }: Bars, top: number): { svg: string; height: number } {
  const most = Math.max(1e-12, ...rows.map(({ value }) => Math.abs(value)));
  // Room for a number on either side of the longest bar.
  const half = (chartWidth - labelWidth) / 2 - 60;
  const middle = labelWidth + half + 60;
  const head = top + 22;
  const parts = [`<text class="title" x="0" y="${top + 14}">${escapeHtml(title)}</text>`];
  rows.forEach(({ name, value, hint }, r) => {
    const y = head + r * cellHeight;
    const long = (half * Math.abs(value)) / most;
    const below = value < 0;
    parts.push(
      `<text x="${labelWidth - 8}" y="${y + 12}" text-anchor="end">${escapeHtml(name)}</text>` +
        `<rect class="${below ? 'down' : 'up'}" x="${(below ? middle - long : middle).toFixed(1)}" y="${y}" width="${Math.max(0.5, long).toFixed(1)}" height="${cellHeight - 2}"><title>${escapeHtml(hint)}</title></rect>` +
        `<text x="${(below ? middle - long - 5 : middle + long + 5).toFixed(1)}" y="${y + 12}" text-anchor="${below ? 'end' : 'start'}">${below ? '−' : '+'}${Math.abs(value).toFixed(4)}</text>`,
    );
  });
  const end = head + rows.length * cellHeight;
  parts.push(`<line class="zero" x1="${middle}" x2="${middle}" y1="${head - 2}" y2="${end}"/>`);
  return { svg: parts.join(''), height: 22 + rows.length * cellHeight + 22 };
}

/**
 * The explanation as one SVG image that reads on light and dark pages: attention by span for each layer and head, the weight of each
 * hour inside its span, and the change of the first label's probability without each variable and span. It says that attention is no cause.
 *
 * @throws HPformerError `ERR_HPFORMER_TYPE` for anything but an explanation, `ERR_HPFORMER_INPUT` for one whose parts do not fit.
 */
export function explanationSvg(explanation: Explanation): string {
  checkExplanation('explanationSvg', explanation);
  const { spans, attention, hours, perturbations } = explanation;
  const percent = (v: number): string => `${(100 * v).toFixed(2)} %`;
  const spanColumns = spans.map(spanName);
  const spanOfHour = hours.map(({ span }) => span);
  const blocks: Block[] = [
    {
      title: 'Attention over the spans of the stay, by layer and head',
      columns: spanColumns,
      rows: [
        {
          name: 'mean',
          cells: explanation.meanAttention.map((w, s) => ({
            value: w,
            hint: `mean, ${spanColumns[s]}: ${percent(w)}`,
          })),
        },
        ...attention.flatMap((heads, l) =>
          heads.map((weights, h) => ({
            name: `layer ${l}, head ${h}`,
            cells: weights.map((w, s) => ({
              value: w,
              hint: `layer ${l}, head ${h}, ${spanColumns[s]}: ${percent(w)}`,
            })),
          })),
        ),
      ],
    },
    {
      title: 'Weight of each hour inside its span',
      // Each span's name stands over its middle hour.
      columns: hours.map((_, i) => {
        const s = spanOfHour.indexOf(spanOfHour[i]!);
        const last = spanOfHour.lastIndexOf(spanOfHour[i]!);
        return i === Math.floor((s + last) / 2) ? spanColumns[spanOfHour[i]!]! : '';
      }),
      rows: [
        {
          name: 'hour',
          cells: hours.map(({ hour, weight }) => ({ value: weight, hint: `hour ${hour}: ${percent(weight)}` })),
        },
      ],
    },
  ];
  const changes = (kind: 'variable' | 'span', title: string): Bars => ({
    title: `${title} (blue lower, orange higher)`,
    rows: perturbations
      .filter((p) => p.kind === kind)
      .map(({ name, change }) => ({
        name,
        value: change[0]!,
        hint: `without ${name}: ${change[0]! >= 0 ? '+' : ''}${change[0]!.toFixed(4)}`,
      })),
  });
  let top = 40;
  const place = ({ svg, height }: { svg: string; height: number }): string => {
    top += height;
    return svg;
  };
  const body = [
    ...blocks.map((block) => place(draw(block, top))),
    ...[
      changes('variable', 'Change of the probability without a variable'),
      changes('span', 'Change of the probability without a span'),
    ]
      .filter(({ rows }) => rows.length > 0)
      .map((bars) => place(drawBars(bars, top))),
  ].join('\n');
  const shown = explanation.probabilities.map((p) => p.toFixed(4)).join(', ');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${chartWidth} ${top + 30}" width="${chartWidth}" role="img" aria-label="Explanation of ${escapeHtml(explanation.id)}">
<style>svg { --ink: #1c2128; --soft: #5b6470; --back: #ffffff; --up: #b4520a; --down: #1f5fa8; background: var(--back); } @media (prefers-color-scheme: dark) { svg { --ink: #e3e8ee; --soft: #9aa5b1; --back: #14181d; --up: #f2a25c; --down: #78b4f5; } } text { font: 11px system-ui, sans-serif; fill: var(--soft); } .title, .name { fill: var(--ink); font-weight: 600; } .name { font-size: 15px; } .up { fill: var(--up); } .down { fill: var(--down); } .zero { stroke: var(--soft); stroke-width: .6; }</style>
<text class="name" x="0" y="18">${escapeHtml(explanation.id)}: probability ${shown} at hour ${explanation.hour}</text>
${body}
<text x="0" y="${top + 10}">${escapeHtml(attentionNotice.split('; ')[0]!)};</text>
<text x="0" y="${top + 25}">${escapeHtml(attentionNotice.split('; ')[1]!)}</text>
</svg>
`;
}
