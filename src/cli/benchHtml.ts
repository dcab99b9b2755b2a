/** One self-contained page for a benchmark: inline SVG, no script, readable in light and dark and on a phone. */

/** Points of one curve. */
export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
}

const quoted = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
const short = (x: number) => {
  const size = Math.abs(x);
  if (size >= 1024 && Number.isInteger(Math.log2(size))) {
    // Lengths: powers of two are counted in them.
    const [unit, scale] = size >= 2 ** 20 ? ['M', 2 ** 20] : ['K', 1024];
    return `${x / (scale as number)}${unit}`;
  }
  if (size >= 1e9) return `${+(x / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(x / 1e6).toPrecision(3)}M`;
  if (size >= 1e3) return `${+(x / 1e3).toPrecision(3)}k`;
  return `${+x.toPrecision(3)}`;
};

const width = 560;
const height = 380;
const frame = { left: 76, right: 20, top: 16, bottom: 70 };
const colour = (i: number) => `var(--c${i % 8})`;

interface Axis {
  from: number;
  to: number;
  ticks: number[];
}

/** A logarithmic axis over whole decades or, where the data spans less than two or counts in them, over powers of two. */
function logAxis(values: readonly number[]): Axis {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const lengths = values.every((value) => Number.isInteger(Math.log2(value)));
  const base = high / low > 100 && !lengths ? 10 : 2;
  const first = Math.floor(Math.log(low) / Math.log(base) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(Math.log(high) / Math.log(base) - 1e-9));
  const step = Math.ceil((last - first) / 8);
  const ticks: number[] = [];
  for (let n = first; n <= last; n += step) ticks.push(base ** n);
  return { from: base ** first, to: base ** last, ticks };
}

const place = (axis: Axis, value: number, length: number) =>
  (Math.log(value / axis.from) / Math.log(axis.to / axis.from)) * length;

function axes(x: Axis, y: Axis, xTitle: string, yTitle: string): string {
  const inner = { w: width - frame.left - frame.right, h: height - frame.top - frame.bottom };
  const lines = [
    ...x.ticks.map((tick) => {
      const at = frame.left + place(x, tick, inner.w);
      return `<line class="grid" x1="${at}" x2="${at}" y1="${frame.top}" y2="${frame.top + inner.h}"/><text x="${at}" y="${frame.top + inner.h + 26}" text-anchor="middle">${short(tick)}</text>`;
    }),
    ...y.ticks.map((tick) => {
      const at = frame.top + inner.h - place(y, tick, inner.h);
      return `<line class="grid" x1="${frame.left}" x2="${frame.left + inner.w}" y1="${at}" y2="${at}"/><text x="${frame.left - 8}" y="${at + 4}" text-anchor="end">${short(tick)}</text>`;
    }),
  ];
  const titles = `<text x="${frame.left + inner.w / 2}" y="${height - 8}" text-anchor="middle">${quoted(xTitle)}</text><text transform="translate(18 ${frame.top + inner.h / 2}) rotate(-90)" text-anchor="middle">${quoted(yTitle)}</text>`;
  return lines.join('') + titles;
}

const svg = (label: string, body: string, h = height, kind = 'plot') =>
  `<svg class="${kind}" viewBox="0 0 ${width} ${h}" role="img" aria-label="${quoted(label)}">${body}</svg>`;

const legend = (names: readonly string[], dashed = '') =>
  `<p class="legend">${names.map((name, i) => `<span><i style="background:${colour(i)}"></i>${quoted(name)}</span>`).join('')}${dashed && `<span><i class="dashed"></i>${quoted(dashed)}</span>`}</p>`;

/** Curves on two logarithmic axes. A dashed line through the last point of the first one shows what growth in proportion would be. */
export function curves(label: string, series: readonly Series[], xTitle: string, yTitle: string): string {
  const shown = series.map((s) => ({ ...s, points: s.points.filter(([x, y]) => x > 0 && y > 0) }));
  const points = shown.flatMap((s) => s.points);
  if (points.length === 0) return '';
  const x = logAxis(points.map((p) => p[0]));
  const y = logAxis(points.map((p) => p[1]));
  const inner = { w: width - frame.left - frame.right, h: height - frame.top - frame.bottom };
  const spot = ([px, py]: readonly [number, number]) =>
    [frame.left + place(x, px, inner.w), frame.top + inner.h - place(y, py, inner.h)]
      .map((n) => n.toFixed(1))
      .join(',');
  const lines = shown.map((s, i) => {
    const dots = s.points.map((p) => {
      const [cx, cy] = spot(p).split(',');
      return `<circle cx="${cx}" cy="${cy}" r="4" fill="${colour(i)}"><title>${quoted(s.name)}: ${short(p[0])}, ${short(p[1])}</title></circle>`;
    });
    return `<polyline points="${s.points.map(spot).join(' ')}" fill="none" stroke="${colour(i)}" stroke-width="2"/>${dots.join('')}`;
  });
  const last = shown[0]?.points.at(-1);
  let guide = '';
  if (last && points.length > 1) {
    const slope = last[1] / last[0];
    // Where the line enters the frame: at its left edge or at its floor.
    const from = Math.max(x.from, y.from / slope);
    guide = `<polyline class="roof" fill="none" points="${spot([from, from * slope])} ${spot(last)}"><title>in proportion</title></polyline>`;
  }
  const names = shown.map((s) => s.name);
  return svg(label, axes(x, y, xTitle, yTitle) + guide + lines.join('')) + legend(names, guide && 'in proportion to L');
}

/** One kernel on the roofline: operations per byte, and the rate reached. */
export interface RooflinePoint {
  name: string;
  flops: number;
  bytes: number;
  gflops: number;
}

type Spot = readonly [x: number, y: number];

/** Half the width and the height that a number takes, at the larger type of a phone. */
const numberSize = { half: 11, height: 15 };

/** Where a point's number goes (its middle, its baseline): the nearest place around it that no point, number or frame takes. */
function freePlace([cx, cy]: Spot, points: readonly Spot[], numbers: readonly Spot[]): Spot {
  const places: Spot[] = [];
  for (const distance of [14, 22, 32, 44]) {
    for (let turn = 0; turn < 12; turn++) {
      const angle = ((turn - 2) * Math.PI) / 6;
      places.push([cx + distance * Math.cos(angle), cy + distance * Math.sin(angle) + 5]);
    }
  }
  const free = ([x, y]: Spot) =>
    x > frame.left + 6 &&
    x < width - 10 &&
    y > frame.top + 10 &&
    y < height - frame.bottom - 4 &&
    points.every(
      ([a, b]) => Math.abs(a - x) > numberSize.half + 5 || Math.abs(b - (y - 5)) > numberSize.height / 2 + 5,
    ) &&
    numbers.every(([a, b]) => Math.abs(a - x) > 2 * numberSize.half || Math.abs(b - y) > numberSize.height);
  return places.find(free) ?? places[0]!;
}

/** Copy bandwidth of one size of buffer: a roof of its own. */
export interface Bandwidth {
  name: string;
  gbs: number;
}

/** Rates against operations per byte under the measured roofs: `peak` GFLOP/s, and a slope for each bandwidth. */
export function roofline(
  label: string,
  points: readonly RooflinePoint[],
  peak: number,
  bandwidths: readonly Bandwidth[],
): string {
  const usable = points.filter((p) => p.flops > 0 && p.bytes > 0 && p.gflops > 0);
  const slopes = bandwidths.filter(({ gbs }) => gbs > 0);
  if (usable.length === 0 || !(peak > 0) || slopes.length === 0) return '';
  const intensity = usable.map((p) => p.flops / p.bytes);
  const x = logAxis([...intensity, ...slopes.map(({ gbs }) => peak / gbs)]);
  const y = logAxis([...usable.map((p) => p.gflops), peak]);
  const inner = { w: width - frame.left - frame.right, h: height - frame.top - frame.bottom };
  const spot = (px: number, py: number): Spot => [
    frame.left + place(x, px, inner.w),
    frame.top + inner.h - place(y, py, inner.h),
  ];
  const text = (spots: readonly Spot[]) => spots.map((s) => s.map((n) => n.toFixed(1)).join(',')).join(' ');
  const line = (spots: readonly Spot[], title: string) =>
    `<polyline class="roof" fill="none" points="${text(spots)}"><title>${quoted(title)}</title></polyline>`;
  const roofs = [
    line([spot(x.from, peak), spot(x.to, peak)], `peak: ${short(peak)} GFLOP/s`),
    ...slopes.map(({ name, gbs }) => {
      const from = Math.max(x.from, y.from / gbs);
      const to = Math.min(x.to, peak / gbs);
      return from < to ? line([spot(from, from * gbs), spot(to, to * gbs)], `copy of ${name}: ${short(gbs)} GB/s`) : '';
    }),
  ];
  const spots = usable.map((p, i) => spot(intensity[i]!, p.gflops));
  const numbers: Spot[] = [];
  const dots = usable.map((p, i) => {
    const [cx, cy] = spots[i]!;
    const number = freePlace([cx, cy], spots, numbers);
    numbers.push(number);
    const title = `<title>${quoted(p.name)}: ${short(p.gflops)} GFLOP/s</title>`;
    const [nx, ny] = number;
    const far = Math.hypot(nx - cx, ny - 5 - cy) > 18;
    const pointer = far
      ? `<line class="grid" x1="${cx.toFixed(1)}" y1="${cy.toFixed(1)}" x2="${nx.toFixed(1)}" y2="${(ny - 5).toFixed(1)}"/>`
      : '';
    // Colours repeat after eight; numbers do not.
    return `${pointer}<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="5" fill="${colour(i)}">${title}</circle><text x="${nx.toFixed(1)}" y="${ny.toFixed(1)}" text-anchor="middle">${i + 1}</text>`;
  });
  const body = axes(x, y, 'operations per byte', 'GFLOP/s') + roofs.join('') + dots.join('');
  const sizes = slopes.map(({ name, gbs }) => `${name} ${short(gbs)}`).join(', ');
  const dashed = `peak ${short(peak)} GFLOP/s; copies in GB/s: ${sizes}`;
  return (
    svg(label, body) +
    legend(
      usable.map((p, i) => `${i + 1} ${p.name}`),
      dashed,
    )
  );
}

/** One bar. */
export interface Bar {
  name: string;
  value: number;
  /** Shown beside the bar; default: the value. */
  text?: string;
}

/** Horizontal bars from zero; `mark` draws a line at that value (for ratios: 1). */
export function bars(label: string, items: readonly Bar[], mark?: number): string {
  if (items.length === 0) return '';
  const row = 30;
  // Room for the longest name and figure at the larger type of a phone.
  const letters = (texts: readonly string[]) => Math.max(...texts.map((text) => text.length));
  const left = Math.min(300, 16 + 9.6 * letters(items.map(({ name }) => name)));
  const right = 16 + 10 * letters(items.map(({ text, value }) => text ?? short(value)));
  const most = Math.max(...items.map((item) => item.value), mark ?? 0);
  const scale = Math.max(40, width - left - right) / most;
  const body = items.map((item, i) => {
    const y = i * row + 8;
    const long = Math.max(1, item.value * scale);
    return `<text x="${left - 8}" y="${y + 15}" text-anchor="end">${quoted(item.name)}</text><rect x="${left}" y="${y}" width="${long.toFixed(1)}" height="20" rx="3" fill="${colour(0)}"/><text x="${(left + long + 6).toFixed(1)}" y="${y + 15}">${quoted(item.text ?? short(item.value))}</text>`;
  });
  const line =
    mark === undefined
      ? ''
      : `<line class="roof" x1="${left + mark * scale}" x2="${left + mark * scale}" y1="0" y2="${items.length * row + 8}"/>`;
  return svg(label, body.join('') + line, items.length * row + 12, 'bars');
}

/** A table; cells are text. Of kind `pairs` they wrap on a phone. */
export function table(header: readonly string[], rows: readonly (readonly string[])[], kind = ''): string {
  const cells = (row: readonly string[], tag: string) =>
    `<tr>${row.map((c) => `<${tag}>${quoted(c)}</${tag}>`).join('')}</tr>`;
  return `<div class="wide"><table${kind && ` class="${kind}"`}><thead>${cells(header, 'th')}</thead><tbody>${rows.map((row) => cells(row, 'td')).join('')}</tbody></table></div>`;
}

/** A part of the page; empty content leaves it out. */
export const section = (title: string, ...content: string[]): string =>
  content.join('') === '' ? '' : `<section><h2>${quoted(title)}</h2>${content.join('')}</section>`;

const style = `
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--back:#fff;--grid:#d8dee4;
--c0:#0969da;--c1:#bc4c00;--c2:#1a7f37;--c3:#8250df;--c4:#bf3989;--c5:#9a6700;--c6:#0b7285;--c7:#57606a}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--back:#0d1117;--grid:#30363d;
--c0:#58a6ff;--c1:#ffa657;--c2:#56d364;--c3:#bc8cff;--c4:#ff7bbf;--c5:#e3b341;--c6:#39c5cf;--c7:#9aa4af}}
*{box-sizing:border-box}body{margin:0 auto;max-width:860px;padding:24px 16px;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 4px}h2{font-size:1.15rem;margin:32px 0 8px}p{margin:4px 0 12px;color:var(--soft)}
svg{display:block;width:100%;height:auto}svg text{fill:var(--ink);font:13px system-ui,sans-serif}
svg.plot,svg.bars{max-width:720px}.grid{stroke:var(--grid)}.roof{stroke:var(--soft);stroke-width:2;stroke-dasharray:6 4}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--ink);font-size:.85rem}.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px}
.legend i.dashed{height:0;width:18px;border-top:2px dashed var(--soft);border-radius:0;vertical-align:4px}
.wide{overflow-x:auto}table{border-collapse:separate;border-spacing:0;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--back)}
@media(max-width:600px){body{padding:16px 12px}svg.plot text{font-size:17px}svg.bars text{font-size:17px}.wide{margin-right:-12px}td:first-child{white-space:normal;min-width:8.5rem}.pairs td{white-space:normal}}
@media(min-width:900px){.wide{position:relative;left:50%;transform:translateX(-50%);width:max-content;min-width:100%;max-width:calc(100vw - 32px)}}`;

/** The page. `note` says on what machine. */
export function page(title: string, note: string, ...sections: string[]): string {
  return `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>${quoted(title)}</title><style>${style}</style></head><body><h1>${quoted(title)}</h1><p>${quoted(note)}</p>${sections.join('')}</body></html>\n`;
}
