// Each requested model: traffic, speed, errors, and the nodes that have it.

import { get, lately } from "../api.js";
import { el } from "../dom.js";
import { brief, count, duration, percent, points } from "../format.js";
import { link } from "../route.js";
import { isScoped, namesOf, nothingPasses, scoped, scopeOf } from "../scope.js";
import { numbers, table } from "../tables.js";
import { daysChoice, daysOf } from "../windows.js";
import { ERRORS } from "../words.js";
import { noTraffic } from "./fleet.js";

const STATUS_AGE_MS = 5000;

async function load(route, signal) {
  const asked = { days: daysOf(route.params), ...scopeOf(route.params) };
  const [found, status, names] = await Promise.all([
    get("/dashboard/api/models", asked, signal),
    lately("/fleet/status", {}, STATUS_AGE_MS, signal),
    namesOf(signal),
  ]);
  return { rows: found.data, nodes: status.nodes, names };
}

function view({ rows, nodes, names }, route) {
  const { params } = route;
  const head = scoped({
    section: "models",
    title: "Models",
    params,
    names,
    window: daysChoice("models", params),
    asked: { days: daysOf(params) },
  });
  if (!rows.length) return [head, isScoped(params) ? nothingPasses(params) : noTraffic("No requests in this window")];
  const all = rows.reduce((sum, row) => sum + row.request_count, 0);
  return [
    head,
    table({
      caption: "Models requested in this window",
      rows,
      key: (row) => `model-${row.model}`,
      view: { section: "models", params },
      columns: columns(all, nodes, params),
    }),
    el(
      "p",
      { class: "muted" },
      "Each row counts the requests that the model answered, including as a fallback. Speed is measured on streams.",
    ),
  ];
}

function columns(all, nodes, params) {
  const kept = { ...scopeOf(params), hours: 24 * daysOf(params) };
  return [
    {
      head: "Model",
      first: true,
      sort: (row) => row.model,
      cell: (row) =>
        row.model
          ? el("a", { class: "name", href: link("latency", { ...kept, model: row.model }) }, row.model)
          : "none",
    },
    {
      head: "Requests",
      sub: "share",
      number: true,
      sort: (row) => row.request_count,
      cell: (row) => [
        count(row.request_count),
        el("div", { class: "muted" }, percent((100 * row.request_count) / all), narrow(" of all")),
      ],
    },
    numbers("Error rate", "error_rate_pct", percent, ERRORS),
    {
      head: "Duration",
      sub: "p50, p95",
      number: true,
      title: "Completed requests: p50, p95 below",
      sort: (row) => row.p95_latency_ms,
      cell: (row) => percentiles(row, "latency"),
    },
    {
      head: "First token",
      sub: "p50, p95",
      number: true,
      title: "Streams: p50, p95 below",
      sort: (row) => row.p95_ttft_ms,
      cell: (row) => percentiles(row, "ttft"),
    },
    {
      head: "Speed",
      sub: "p50",
      number: true,
      title: "Median output tokens per second of streams",
      sort: (row) => speed(row),
      cell: (row) => (speed(row) ? `${points(speed(row), 0)} tok/s` : "–"),
    },
    {
      head: "Tokens",
      sub: "in, out",
      number: true,
      title: "Prompt tokens, completion tokens below",
      sort: (row) => row.total_completion_tokens,
      cell: (row) => two("in", brief(row.total_prompt_tokens), "out", brief(row.total_completion_tokens)),
    },
    numbers("Cold loads", "cold_load_count", count),
    numbers("Fallbacks", "fallback_count", count, "Requests answered in place of another model"),
    { head: "Where", wide: true, cell: (row) => where(row.model, nodes) },
  ];
}

// The column heads name both values; a phone shows no heads, so each value carries its label.
const narrow = (text) => el("span", { class: "narrow muted" }, text);
const two = (first, one, second, other) => [
  narrow(`${first} `),
  one,
  el("div", { class: "muted" }, narrow(`${second} `), other),
];
const percentiles = (row, of) => two("p50", duration(row[`p50_${of}_ms`]), "p95", duration(row[`p95_${of}_ms`]));
const speed = (row) => (row.p50_time_per_output_token_ms ? 1000 / row.p50_time_per_output_token_ms : null);

function where(model, nodes) {
  const here = nodes.filter((node) => node.status !== "offline");
  const loaded = here
    .filter((node) => node.ollama.models_loaded.some((each) => each.name === model))
    .map((node) => node.node_id);
  const disk = here
    .filter((node) => node.ollama.models_available.includes(model) && !loaded.includes(node.node_id))
    .map((node) => node.node_id);
  if (!loaded.length && !disk.length) return el("span", { class: "muted" }, "on no node");
  return [
    loaded.length > 0 && el("div", {}, el("b", {}, "loaded"), ` ${loaded.join(", ")}`),
    disk.length > 0 && el("div", { class: "muted" }, `on disk ${disk.join(", ")}`),
  ];
}

export const models = {
  id: "models",
  title: "Models",
  letter: "m",
  load,
  view,
  live: () => ({ on: ["request", "fleet"], least_ms: 15_000 }),
};
