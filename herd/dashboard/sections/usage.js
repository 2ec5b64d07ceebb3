// Usage by node, model and day: requests, tokens, retries and fallbacks.

import { get } from "../api.js";
import { chart } from "../charts.js";
import { el } from "../dom.js";
import { brief, count, duration, percent, utcDay } from "../format.js";
import { choice, model, node, part } from "../parts.js";
import { link } from "../route.js";
import { isScoped, namesOf, nothingPasses, scoped, scopeOf } from "../scope.js";
import { byDay, largest } from "../series.js";
import { table } from "../tables.js";
import { daysChoice, daysOf } from "../windows.js";
import { noTraffic } from "./fleet.js";

const CHARTED = 5;
const BY = { model: "by model", node: "by node", day: "by day", all: "by day, node and model" };
const KEYS = { model: ["model"], node: ["node_id"], day: ["day"], all: ["day", "node_id", "model"] };
const SUMS = [
  "request_count",
  "completed_count",
  "failed_count",
  "incomplete_count",
  "client_disconnected_count",
  "rejected_count",
  "total_prompt_tokens",
  "total_completion_tokens",
  "retry_count",
  "fallback_count",
];

async function load(route, signal) {
  const asked = { days: daysOf(route.params), ...scopeOf(route.params) };
  const [found, names] = await Promise.all([get("/dashboard/api/usage", asked, signal), namesOf(signal)]);
  return { rows: found.data, names };
}

function view({ rows, names }, route) {
  const { params } = route;
  const by = BY[params.by] ? params.by : "model";
  const days = daysOf(params);
  const head = scoped({
    section: "usage",
    title: "Usage",
    params,
    names,
    window: daysChoice("usage", params),
    asked: { days },
  });
  if (!rows.length) return [head, isScoped(params) ? nothingPasses(params) : noTraffic("No requests in this window")];
  const column = by === "node" ? "node_id" : "model";
  const charted = largest(rows, column, "request_count", CHARTED);
  return [
    head,
    part(
      "By day",
      el(
        "div",
        { class: "charts" },
        chart({
          title: `Requests by ${column === "node_id" ? "node" : "model"}`,
          show: brief,
          daily: true,
          ...byDay(rows, column, "request_count", charted, days),
        }),
        chart({ title: "Tokens in and out", show: brief, daily: true, ...tokens(rows, days) }),
      ),
    ),
    part(
      "Totals",
      choice("Totals", BY, by, (value) => link("usage", { ...params, by: value, sort: "" })),
      table({
        caption: `Usage ${BY[by]}`,
        rows: grouped(rows, KEYS[by]),
        key: (row) => `usage-${KEYS[by].map((name) => row[name]).join("|")}`,
        view: { section: "usage", params },
        columns: columns(KEYS[by]),
      }),
    ),
  ];
}

function tokens(rows, days) {
  const prompt = byDay(
    rows.map((row) => ({ ...row, what: "prompt" })),
    "what",
    "total_prompt_tokens",
    ["prompt"],
    days,
  );
  const answer = byDay(
    rows.map((row) => ({ ...row, what: "answer" })),
    "what",
    "total_completion_tokens",
    ["answer"],
    days,
  );
  return {
    ...prompt,
    series: [
      { ...prompt.series[0], name: "prompt tokens" },
      { ...answer.series[0], name: "completion tokens", color: "--series-2" },
    ],
  };
}

function grouped(rows, keys) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify(keys.map((name) => row[name]));
    if (!groups.has(key))
      groups.set(key, {
        ...Object.fromEntries(keys.map((name) => [name, row[name]])),
        timed: [0, 0],
        first: [0, 0],
        ...Object.fromEntries(SUMS.map((name) => [name, 0])),
      });
    add(groups.get(key), row);
  }
  return [...groups.values()].sort((left, right) => right.request_count - left.request_count);
}

function add(group, row) {
  for (const name of SUMS) group[name] += row[name] ?? 0;
  weigh(group.timed, row.avg_latency_ms, row.completed_count);
  weigh(group.first, row.avg_ttft_ms, row.completed_count || 1);
}

/** A weighted average of averages. */
function weigh(sum, average, of) {
  if (average === null || average === undefined) return;
  sum[0] += average * of;
  sum[1] += of;
}

const average = ([sum, of]) => (of ? sum / of : null);

const KEY_COLUMNS = {
  day: { head: "Day (UTC)", name: "day", sort: (row) => row.day, cell: (row) => utcDay(row.day) },
  node_id: { head: "Node", sort: (row) => row.node_id, cell: (row) => node(row.node_id) },
  model: { head: "Model", sort: (row) => row.model, cell: (row) => model(row.model) },
};

function columns(keys) {
  return [
    ...keys.map((name, index) => ({ ...KEY_COLUMNS[name], first: index === 0 })),
    { head: "Requests", number: true, sort: (row) => row.request_count, cell: (row) => count(row.request_count) },
    {
      head: "Completed",
      number: true,
      sort: (row) => row.completed_count / row.request_count,
      cell: (row) => percent((100 * row.completed_count) / row.request_count),
    },
    {
      head: "Errors",
      number: true,
      sort: (row) => row.failed_count + row.incomplete_count,
      title: "Failed and incomplete",
      cell: (row) => count(row.failed_count + row.incomplete_count),
    },
    {
      head: "Disconnected",
      number: true,
      title: "The client disconnected",
      sort: (row) => row.client_disconnected_count,
      cell: (row) => count(row.client_disconnected_count),
    },
    { head: "Rejected", number: true, sort: (row) => row.rejected_count, cell: (row) => count(row.rejected_count) },
    { head: "Retries", number: true, sort: (row) => row.retry_count, cell: (row) => count(row.retry_count) },
    { head: "Fallbacks", number: true, sort: (row) => row.fallback_count, cell: (row) => count(row.fallback_count) },
    {
      head: "Tokens in",
      number: true,
      sort: (row) => row.total_prompt_tokens,
      cell: (row) => el("span", { title: count(row.total_prompt_tokens) }, brief(row.total_prompt_tokens)),
    },
    {
      head: "Tokens out",
      number: true,
      sort: (row) => row.total_completion_tokens,
      cell: (row) => el("span", { title: count(row.total_completion_tokens) }, brief(row.total_completion_tokens)),
    },
    {
      head: "Average",
      number: true,
      title: "Latency of completed requests",
      sort: (row) => average(row.timed),
      cell: (row) => duration(average(row.timed)),
    },
    {
      head: "First token",
      number: true,
      title: "Average; streams only",
      sort: (row) => average(row.first),
      cell: (row) => duration(average(row.first)),
    },
  ];
}

export const usage = {
  id: "usage",
  title: "Usage",
  letter: "u",
  load,
  view,
  live: () => ({ on: ["request"], least_ms: 15_000 }),
};
