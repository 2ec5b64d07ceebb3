// Requests by tag: application, team or environment, in total and by day.

import { get } from "../api.js";
import { chart } from "../charts.js";
import { el } from "../dom.js";
import { brief, count, duration, percent } from "../format.js";
import { copyable, empty, part } from "../parts.js";
import { router } from "../place.js";
import { link } from "../route.js";
import { isScoped, namesOf, nothingPasses, scoped, scopeOf } from "../scope.js";
import { byDay } from "../series.js";
import { table } from "../tables.js";
import { ago } from "../when.js";
import { daysChoice, daysOf } from "../windows.js";
import { ERRORS } from "../words.js";

const CHARTED = 5;

async function load(route, signal) {
  const asked = { days: daysOf(route.params), ...scopeOf(route.params) };
  const [sums, daily, names] = await Promise.all([
    get("/dashboard/api/apps", asked, signal),
    get("/dashboard/api/apps/daily", asked, signal),
    namesOf(signal),
  ]);
  return { rows: sums.data, daily: daily.data, names };
}

function view({ rows, daily, names }, route) {
  const { params } = route;
  const head = scoped({
    section: "apps",
    title: "Apps",
    params,
    names,
    window: daysChoice("apps", params),
    asked: { days: daysOf(params) },
  });
  if (!rows.length) return [head, isScoped(params) ? nothingPasses(params) : untagged()];
  const shown = rows.slice(0, CHARTED).map((row) => row.tag);
  return [
    head,
    el("p", { class: "muted" }, "By tag. A request with two tags counts under both."),
    part(
      "Requests by day",
      chart({
        title: "Requests by tag",
        show: brief,
        daily: true,
        ...byDay(daily, "tag", "request_count", shown, daysOf(params)),
      }),
    ),
    part(
      "Tags",
      table({
        caption: "Tags in this window",
        rows,
        key: (row) => `tag-${row.tag}`,
        view: { section: "apps", params },
        columns: columns(scopeOf(params)),
      }),
    ),
  ];
}

const columns = (scope) => [
  {
    head: "Tag",
    first: true,
    sort: (row) => row.tag,
    cell: (row) => el("a", { class: "tag", href: link("traces", { ...scope, tag: row.tag }) }, row.tag),
  },
  { head: "Requests", number: true, sort: (row) => row.request_count, cell: (row) => count(row.request_count) },
  {
    head: "Errors",
    number: true,
    title: "Failed and incomplete",
    sort: (row) => row.failed_count + row.incomplete_count,
    cell: (row) => count(row.failed_count + row.incomplete_count),
  },
  {
    head: "Error rate",
    number: true,
    title: ERRORS,
    sort: (row) => row.error_rate_pct,
    cell: (row) => percent(row.error_rate_pct),
  },
  {
    head: "Average",
    number: true,
    title: "Latency of completed requests",
    sort: (row) => row.avg_latency_ms,
    cell: (row) => duration(row.avg_latency_ms),
  },
  {
    head: "p95",
    number: true,
    title: "95% of completed requests were faster",
    sort: (row) => row.p95_latency_ms,
    cell: (row) => duration(row.p95_latency_ms),
  },
  {
    head: "First token",
    number: true,
    title: "Average; streams only",
    sort: (row) => row.avg_ttft_ms,
    cell: (row) => duration(row.avg_ttft_ms),
  },
  {
    head: "Prompt tokens",
    number: true,
    sort: (row) => row.total_prompt_tokens,
    cell: (row) => el("span", { title: count(row.total_prompt_tokens) }, brief(row.total_prompt_tokens)),
  },
  {
    head: "Completion tokens",
    number: true,
    sort: (row) => row.total_completion_tokens,
    cell: (row) => el("span", { title: count(row.total_completion_tokens) }, brief(row.total_completion_tokens)),
  },
  { head: "Last seen", sort: (row) => row.last_seen, cell: (row) => ago(row.last_seen) },
];

function untagged() {
  return [
    empty(
      "No tagged requests in this window",
      "Tag requests in the body or in a header to count them here by application, team or environment.",
    ),
    copyable(
      `curl -s ${router}/v1/chat/completions -d '{"model":"llama3.2:3b","messages":[{"role":"user","content":"Hello"}],"metadata":{"tags":["prod","review"]}}'`,
    ),
    copyable(
      `curl -s -H "X-Herd-Tags: prod, review" ${router}/api/generate -d '{"model":"llama3.2:3b","prompt":"Hello"}'`,
    ),
  ];
}

export const apps = {
  id: "apps",
  title: "Apps",
  letter: "a",
  load,
  view,
  live: () => ({ on: ["request"], least_ms: 15_000 }),
};
