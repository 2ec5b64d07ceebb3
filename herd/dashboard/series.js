// Turns rows by day or hour into chart series: one column of values per name, without gaps in time.

const DAY_S = 86_400;
const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

/** Bars by UTC day: one series per name in `names`, and one for all others. */
export function byDay(rows, column, value, names, days, now = Date.now() / 1000) {
  const today = Math.floor(now / DAY_S);
  const x = Array.from({ length: days + 1 }, (_, index) => (today - days + index) * DAY_S);
  const at = new Map(x.map((each, index) => [each, index]));
  const series = names.map((name, index) => ({
    name: name ?? "none",
    color: COLORS[index % COLORS.length],
    kind: "bars",
    values: x.map(() => 0),
  }));
  const others = { name: "others", color: "--series-other", kind: "bars", values: x.map(() => 0) };
  for (const row of rows) {
    const index = at.get(Date.parse(`${row.day}T00:00:00Z`) / 1000);
    if (index !== undefined) (series[names.indexOf(row[column])] ?? others).values[index] += row[value] ?? 0;
  }
  if (others.values.some(Boolean)) series.push(others);
  return { x, series, stacked: true, step: DAY_S };
}

export const color = (index) => COLORS[index % COLORS.length];

/** The names with the largest sums of `value`, largest first. */
export function largest(rows, column, value, most) {
  const sums = new Map();
  for (const row of rows) sums.set(row[column], (sums.get(row[column]) ?? 0) + (row[value] ?? 0));
  return [...sums]
    .sort((left, right) => right[1] - left[1])
    .slice(0, most)
    .map(([name]) => name);
}
