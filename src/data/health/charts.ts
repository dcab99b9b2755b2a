/** Inline SVG for reports: plain shapes that take their colours from the page, so they read in light and dark. */

/** Escapes text for HTML and SVG. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** One line of a chart. */
export interface Line {
  name: string;
  /** Points, x and y in 0…1. */
  points: readonly (readonly [number, number])[];
  /** Draw dots at the points, sized by these weights (0…1). */
  weights?: readonly number[];
}

const size = 320;
const margin = { left: 46, right: 12, top: 12, bottom: 42 };
const width = size - margin.left - margin.right;
const height = size - margin.top - margin.bottom;
const x = (v: number): string => (margin.left + v * width).toFixed(1);
const y = (v: number): string => (margin.top + (1 - v) * height).toFixed(1);

/** At most `most` points, first and last kept: a curve of a million rows needs no million points. */
export function thin<T>(points: readonly T[], most = 400): T[] {
  if (points.length <= most) return [...points];
  const out: T[] = [];
  for (let i = 0; i < most; i++) out.push(points[Math.round((i * (points.length - 1)) / (most - 1))]!);
  return out;
}

/**
 * A square chart of lines over 0…1 by 0…1, with grid, axis names, a legend below and an optional diagonal.
 */
export function lineChart(
  title: string,
  axes: readonly [horizontal: string, vertical: string],
  lines: readonly Line[],
  diagonal: boolean,
): string {
  const grid = [0, 0.25, 0.5, 0.75, 1]
    .map(
      (v) =>
        `<line class="grid" x1="${x(v)}" x2="${x(v)}" y1="${y(0)}" y2="${y(1)}"/><line class="grid" x1="${x(0)}" x2="${x(1)}" y1="${y(v)}" y2="${y(v)}"/>` +
        `<text x="${x(v)}" y="${size - 24}" text-anchor="middle">${v}</text><text x="${margin.left - 6}" y="${(Number(y(v)) + 4).toFixed(1)}" text-anchor="end">${v}</text>`,
    )
    .join('');
  const drawn = lines
    .map(({ points, weights }, i) => {
      const path = points.map(([a, b], k) => `${k === 0 ? 'M' : 'L'}${x(a)} ${y(b)}`).join('');
      const dots = (weights ?? [])
        .map((w, k) => {
          const [a, b] = points[k]!;
          return `<circle class="s${i}" cx="${x(a)}" cy="${y(b)}" r="${(2 + 5 * Math.sqrt(w)).toFixed(1)}"/>`;
        })
        .join('');
      return `<path class="line s${i}" d="${path}"/>${dots}`;
    })
    .join('');
  const legend = lines.map(({ name }, i) => `<span><i class="k${i}"></i>${escapeHtml(name)}</span>`).join('');
  return (
    `<figure><figcaption>${escapeHtml(title)}</figcaption><svg viewBox="0 0 ${size} ${size}" role="img" aria-label="${escapeHtml(title)}">` +
    `${grid}${diagonal ? `<line class="diagonal" x1="${x(0)}" y1="${y(0)}" x2="${x(1)}" y2="${y(1)}"/>` : ''}${drawn}` +
    `<text x="${margin.left + width / 2}" y="${size - 6}" text-anchor="middle">${escapeHtml(axes[0])}</text>` +
    `<text transform="translate(12 ${margin.top + height / 2}) rotate(-90)" text-anchor="middle">${escapeHtml(axes[1])}</text></svg>` +
    `<p class="legend">${legend}</p></figure>`
  );
}

/** A table; cells are text. Columns of numbers stand to the right. */
export function htmlTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const numbers = header.map(
    (_, c) => rows.length > 0 && rows.every((row) => /^[-+\d.]+( \[.*\])?$/.test(row[c] ?? '')),
  );
  const cells = (tag: string, list: readonly string[]) =>
    list.map((text, c) => `<${tag}${numbers[c] ? ' class="n"' : ''}>${escapeHtml(text)}</${tag}>`).join('');
  return `<div class="scroll"><table><thead><tr>${cells('th', header)}</tr></thead><tbody>${rows
    .map((row) => `<tr>${cells('td', row)}</tr>`)
    .join('')}</tbody></table></div>`;
}

/** A whole page that needs nothing from anywhere. */
export function htmlPage(title: string, body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>
:root { color-scheme: light dark; --back: #ffffff; --ink: #1c2128; --soft: #5b6470; --rule: #d5dae1; --s0: #1f5fa8; --s1: #b4520a; --s2: #2c7a3f; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --ink: #e3e8ee; --soft: #9aa5b1; --rule: #353c45; --s0: #78b4f5; --s1: #f2a25c; --s2: #7fce92; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 70rem; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; } th { color: var(--soft); font-weight: 600; } .n { text-align: right; }
.charts { display: flex; flex-wrap: wrap; gap: 1.25rem; } figure { margin: 0; flex: 1 1 18rem; max-width: 24rem; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } .grid { stroke: var(--rule); stroke-width: .6; } .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
.line { fill: none; stroke-width: 1.8; } .line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); } circle.s0 { fill: var(--s0); } circle.s1 { fill: var(--s1); } circle.s2 { fill: var(--s2); }
.legend { color: var(--soft); } .legend span { margin-right: 1rem; } .legend i { display: inline-block; width: .9rem; height: .25rem; margin-right: .35rem; vertical-align: middle; } .k0 { background: var(--s0); } .k1 { background: var(--s1); } .k2 { background: var(--s2); }
</style></head><body>
${body}
</body></html>
`;
}
