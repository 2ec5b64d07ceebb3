// Trends by hour: requests by status, errors, latency, tokens, cold loads, retries and fallbacks.

import { get } from "../api.js";
import { chart } from "../charts.js";
import { el } from "../dom.js";
import { brief, count, duration, percent } from "../format.js";
import { isScoped, namesOf, nothingPasses, scoped, scopeOf } from "../scope.js";
import { hoursChoice, hoursOf } from "../windows.js";
import { noTraffic } from "./fleet.js";

const WINDOWS = { 24: "24 h", 72: "3 days", 168: "7 days", 720: "30 days" };
const HOUR_S = 3600;

async function load(route, signal) {
  const asked = { hours: hoursOf(route.params), ...scopeOf(route.params) };
  const [trend, names] = await Promise.all([get("/dashboard/api/trends", asked, signal), namesOf(signal)]);
  return { rows: trend.data, names };
}

function view({ rows, names }, route) {
  const { params } = route;
  const head = scoped({
    section: "trends",
    title: "Trends",
    params,
    names,
    window: hoursChoice("trends", params, WINDOWS),
    asked: { hours: hoursOf(params) },
  });
  const busy = rows.some((row) => row.request_count);
  if (!busy) return [head, isScoped(params) ? nothingPasses(params) : noTraffic("No requests in this window")];
  return [head, el("div", { class: "charts" }, charts(rows))];
}

function charts(rows) {
  const x = rows.map((row) => row.hour);
  const values = (name) => rows.map((row) => row[name]);
  const line = (name, value, color, dash) => ({ name, values: values(value), color, kind: "line", dash });
  const bar = (name, value, color) => ({
    name,
    values: typeof value === "string" ? values(value) : rows.map(value),
    color,
    kind: "bars",
  });
  const hourly = { x, step: HOUR_S, level: "h2" };
  return [
    chart({
      ...hourly,
      title: "Requests per hour",
      about: "By final status",
      show: brief,
      stacked: true,
      series: [
        bar("rejected", "rejected_count", "--series-5"),
        bar("client disconnected", "client_disconnected_count", "--series-other"),
        bar("errors", (row) => row.failed_count + row.incomplete_count, "--bad"),
        bar("completed", "completed_count", "--series-1"),
      ],
    }),
    chart({
      ...hourly,
      title: "Errors",
      about: "Failed or incomplete, without rejections and client disconnects",
      show: percent,
      series: [
        {
          name: "errors",
          color: "--bad",
          kind: "line",
          values: values("error_rate_pct"),
        },
      ],
    }),
    chart({
      ...hourly,
      title: "Duration",
      about: "Completed requests, from receipt to end",
      show: duration,
      series: percentiles(line, "latency"),
    }),
    chart({
      ...hourly,
      title: "Time to first token",
      about: "Streams",
      show: duration,
      series: percentiles(line, "ttft"),
    }),
    chart({
      ...hourly,
      title: "Tokens per hour",
      show: brief,
      stacked: true,
      series: [
        bar("completion", "total_completion_tokens", "--series-2"),
        bar("prompt", "total_prompt_tokens", "--series-1"),
      ],
    }),
    chart({
      ...hourly,
      title: "Cold loads, retries, fallbacks per hour",
      show: count,
      series: [
        line("cold loads", "cold_load_count", "--series-5"),
        line("retries", "retry_count", "--series-2", [6, 4]),
        line("fallbacks", "fallback_count", "--series-4", [2, 3]),
      ],
    }),
  ];
}

/** p50 is a solid line, p95 a dashed one, to tell them apart without colour. */
export function percentiles(line, measure) {
  return [line("p50", `p50_${measure}_ms`, "--series-1"), line("p95", `p95_${measure}_ms`, "--series-2", [6, 4])];
}

export const trends = {
  id: "trends",
  title: "Trends",
  letter: "r",
  load,
  view,
  live: () => ({ on: ["request"], least_ms: 15_000 }),
};
