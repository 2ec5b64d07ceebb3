// Latency: percentiles of each part of a request, over time, by model and by node.

import { get } from "../api.js";
import { chart } from "../charts.js";
import { el } from "../dom.js";
import { count, duration } from "../format.js";
import { choice, part } from "../parts.js";
import { link } from "../route.js";
import { isScoped, namesOf, nothingPasses, scoped, scopeOf } from "../scope.js";
import { table } from "../tables.js";
import { HOURS, hoursChoice, hoursOf } from "../windows.js";
import { calibration } from "./calibration.js";
import { noTraffic } from "./fleet.js";
import { percentiles } from "./trends.js";

const HOUR_S = 3600;
const MEASURES = {
  latency: ["Duration", "Completed requests, from receipt to end"],
  ttft: ["First token", "Streams, from receipt to first content"],
  time_per_output_token: ["Per output token", "Streams, time between tokens"],
  queue: ["Queue", "Waiting for a slot"],
  overhead: ["Router overhead", "Total minus queue and upstream"],
};
const PERCENTS = [50, 75, 95, 99];

async function load(route, signal) {
  const asked = { hours: hoursOf(route.params), ...scopeOf(route.params) };
  const [found, trend, scored, names] = await Promise.all([
    get("/dashboard/api/latency", asked, signal),
    get("/dashboard/api/trends", asked, signal),
    get("/dashboard/api/calibration", asked, signal),
    namesOf(signal),
  ]);
  return { found, trend: trend.data, scored, names };
}

function view({ found, trend, scored, names }, route) {
  const { params } = route;
  const head = scoped({
    section: "latency",
    title: "Latency",
    params,
    names,
    window: hoursChoice("latency", params, HOURS),
    asked: { hours: hoursOf(params) },
  });
  if (!found.total.request_count)
    return [head, isScoped(params) ? nothingPasses(params) : noTraffic("No requests in this window")];
  return [
    head,
    part("Percentiles", overall(found.total), error(found.relative_error)),
    trend.length > 2 && part("Over time", el("div", { class: "charts" }, overTime(trend))),
    part(
      "By model and node",
      measures(params),
      spreadLegend(),
      byGroup(found.by_model, "model", "Model", params),
      byGroup(found.by_node, "node_id", "Node", params),
    ),
    scored.data.length > 0 && part("Predicted against actual", calibration(scored, params)),
  ];
}

function error(share) {
  return (
    share > 0 &&
    el(
      "p",
      { class: "muted" },
      `From hourly rollups: each percentile is within ${(100 * share).toFixed(1)}% of the exact value.`,
    )
  );
}

function overall(total) {
  return table({
    caption: "Percentiles of all requests in the window",
    rows: Object.entries(MEASURES),
    columns: [
      { head: "Measure", first: true, cell: ([, [text, about]]) => [text, el("div", { class: "muted help" }, about)] },
      { head: "Average", number: true, cell: ([name]) => duration(total[`avg_${name}_ms`]) },
      ...PERCENTS.map((percent) => ({
        head: `p${percent}`,
        number: true,
        cell: ([name]) => duration(total[`p${percent}_${name}_ms`]),
      })),
    ],
  });
}

function overTime(rows) {
  const hourly = { x: rows.map((row) => row.hour), step: HOUR_S, show: duration };
  const line = (name, value, color, dash) => ({
    name,
    values: rows.map((row) => row[value]),
    color,
    kind: "line",
    dash,
  });
  return [
    chart({ ...hourly, title: "Duration", series: percentiles(line, "latency") }),
    chart({ ...hourly, title: "First token", series: percentiles(line, "ttft") }),
  ];
}

function byGroup(rows, column, head, params) {
  const measure = MEASURES[params.measure] ? params.measure : "latency";
  const most = Math.max(0, ...rows.map((row) => row[`p99_${measure}_ms`] ?? 0));
  const value = (name, text) => ({
    head: text,
    number: true,
    sort: (row) => row[name],
    cell: (row) => duration(row[name]),
  });
  return table({
    caption: `${MEASURES[measure][0]} by ${head.toLowerCase()}`,
    rows,
    key: (row) => `${column}-${row[column]}`,
    view: { section: "latency", params },
    columns: [
      {
        head,
        first: true,
        sort: (row) => row[column],
        cell: (row) =>
          row[column]
            ? el("a", { class: "name", href: link("latency", { ...params, [column]: row[column] }) }, row[column])
            : "none",
      },
      { head: "Requests", number: true, sort: (row) => row.request_count, cell: (row) => count(row.request_count) },
      { head: `0 to ${duration(most)}`, class: "spread", cell: (row) => spread(row, measure, most) },
      value(`avg_${measure}_ms`, "Average"),
      ...PERCENTS.map((percent) => value(`p${percent}_${measure}_ms`, `p${percent}`)),
      {
        head: "Cold loads",
        number: true,
        title: "Count, and average duration",
        sort: (row) => row.cold_load_count,
        cell: (row) =>
          row.cold_load_count ? `${count(row.cold_load_count)} × ${duration(row.avg_cold_load_ms)}` : "0",
      },
    ],
  });
}

/** Three overlaid bars, darkest first: p50, p95 and p99. */
function spread(row, measure, most) {
  const length = (percent) => ({ width: most ? `${(100 * (row[`p${percent}_${measure}_ms`] ?? 0)) / most}%` : "0" });
  return el(
    "span",
    { class: "track spread-bar", "aria-hidden": "true", title: "p50, p95 and p99" },
    [99, 95, 50].map((percent) => el("span", { class: `fill p${percent}`, style: length(percent) })),
  );
}

const SPREAD = { p50: "50% of requests", p95: "95%", p99: "99%" };

const spreadLegend = () =>
  el(
    "p",
    { class: "legend" },
    Object.entries(SPREAD).map(([name, words]) =>
      el("span", {}, el("span", { class: "swatch", style: { "--swatch": `var(--${name})` } }), `${name}: ${words}`),
    ),
  );

function measures(params) {
  const options = Object.fromEntries(Object.entries(MEASURES).map(([name, [text]]) => [name, text]));
  return choice("Measure", options, MEASURES[params.measure] ? params.measure : "latency", (measure) =>
    link("latency", { ...params, measure }),
  );
}

export const latency = {
  id: "latency",
  title: "Latency",
  letter: "l",
  load,
  view,
  live: () => ({ on: ["request"], least_ms: 15_000 }),
};
