/**
 * Rows as aligned text: a header, a rule, then the rows. Columns whose cells (below the header) are all numbers align right.
 *
 * @param rows cells as text, every row as long as the header.
 */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const numeric = header.map(
    (_, c) =>
      rows.length > 0 && rows.every((row) => /^(?:[-+]?[\d.,]+(?:e[-+]?\d+)?%?(?: \[.*\])?|–|)$/i.test(row[c]!)),
  );
  const width = header.map((title, c) => Math.max(title.length, ...rows.map((row) => row[c]!.length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => (numeric[c] ? cell.padStart(width[c]!) : cell.padEnd(width[c]!)))
      .join('  ')
      .trimEnd();
  return `${[line(header), width.map((w) => '-'.repeat(w)).join('  '), ...rows.map(line)].join('\n')}\n`;
}

/** Names and values, one pair a line, values in one column. */
export function formatPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return `${pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd()).join('\n')}\n`;
}
