// Each model that was asked for: how much, how fast, how reliable, and where it is.

import { get, lately } from "../api.js";
import { el } from "../dom.js";
import { brief, count, duration, percent, points } from "../format.js";
import { heading } from "../parts.js";
import { link } from "../route.js";
import { download, table } from "../tables.js";
import { daysChoice, daysOf } from "../windows.js";
import { ERRORS } from "../words.js";
import { noTraffic } from "./fleet.js";

const STATUS_AGE_MS = 5000;

async function load(route, signal) {
  const [found, status] = await Promise.all([
    get("/dashboard/api/models", { days: daysOf(route.params) }, signal),
    lately("/fleet/status", {}, STATUS_AGE_MS, signal),
  ]);
  return { rows: found.data, nodes: status.nodes };
}

function view({ rows, nodes }, route) {
  const head = heading(
    "Models",
    daysChoice("models", route.params),
    download("/dashboard/api/models", { days: daysOf(route.params) }),
  );
  if (!rows.length) return [head, noTraffic()];
  const all = rows.reduce((sum, row) => sum + row.request_count, 0);
  return [
    head,
    table({
      caption: "Models that were asked for in this window",
      rows,
      key: (row) => `model-${row.model}`,
      view: { section: "models", params: route.params },
      columns: columns(all, nodes),
    }),
    el(
      "p",
      { class: "muted" },
      "A model's row counts what it answered, also as another's fallback. Speed is that of streams.",
    ),
  ];
}

function columns(all, nodes) {
  const plain = (head, name, show, title = null) => ({
    head,
    name,
    title,
    number: true,
    sort: (row) => row[name],
    cell: (row) => show(row[name]),
  });
  return [
    {
      head: "Model",
      first: true,
      sort: (row) => row.model,
      cell: (row) =>
        row.model
          ? el("a", { class: "name", href: link("latency", { model: row.model, hours: 168 }) }, row.model)
          : "none",
    },
    {
      head: "Requests",
      sub: "share",
      number: true,
      sort: (row) => row.request_count,
      cell: (row) => [
        count(row.request_count),
        el("div", { class: "muted" }, percent((100 * row.request_count) / all)),
      ],
    },
    plain("Error rate", "error_rate_pct", percent, ERRORS),
    {
      head: "Duration",
      sub: "p50, p95",
      number: true,
      title: "Completed requests: p50, p95 below",
      sort: (row) => row.p95_latency_ms,
      cell: (row) => two(row.p50_latency_ms, row.p95_latency_ms),
    },
    {
      head: "First token",
      sub: "p50, p95",
      number: true,
      title: "Streams: p50, p95 below",
      sort: (row) => row.p95_ttft_ms,
      cell: (row) => two(row.p50_ttft_ms, row.p95_ttft_ms),
    },
    {
      head: "Speed",
      sub: "p50",
      number: true,
      title: "Output tokens a second; half of the streams are faster",
      sort: (row) => speed(row),
      cell: (row) => (speed(row) ? `${points(speed(row), 0)} tok/s` : "–"),
    },
    {
      head: "Tokens",
      sub: "in, out",
      number: true,
      title: "Prompts, answers below",
      sort: (row) => row.total_completion_tokens,
      cell: (row) => [
        brief(row.total_prompt_tokens),
        el("div", { class: "muted" }, brief(row.total_completion_tokens)),
      ],
    },
    plain("Cold loads", "cold_load_count", count),
    plain("Fallbacks", "fallback_count", count, "Answered in another model's place"),
    { head: "Where", wide: true, cell: (row) => where(row.model, nodes) },
  ];
}

const two = (p50, p95) => [duration(p50), el("div", { class: "muted" }, duration(p95))];
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
