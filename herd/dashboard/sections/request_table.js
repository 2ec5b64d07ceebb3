// Requests as rows: a few on the start page, the filtered list in Traces.

import { el } from "../dom.js";
import { count, duration, points } from "../format.js";
import { chip, tags } from "../parts.js";
import { link } from "../route.js";
import { table } from "../tables.js";
import { when } from "../when.js";
import { STATUS } from "../words.js";

/** `params` are the filters carried by links to a request, so that the way back leads to the same list. */
export function requestTable(traces, { caption, short = false, params = {} }) {
  return table({
    caption,
    rows: traces,
    key: (trace) => trace.request_id,
    href: (trace) => link("traces", params, trace.request_id),
    columns: short
      ? COLUMNS.filter((column) => !column.long)
      : COLUMNS.map((column) => ({ ...column, cell: (trace) => column.cell(trace, params) })),
  });
}

const COLUMNS = [
  {
    head: "Time",
    first: true,
    class: "moment",
    cell: (trace, params = {}) =>
      el(
        "a",
        { href: link("traces", params, trace.request_id), "aria-label": `Request ${trace.request_id}` },
        when(trace.timestamp),
      ),
  },
  { head: "Status", class: "beside", cell: status },
  { head: "Model", class: "double", cell: modelOf },
  { head: "Node", cell: nodeOf },
  { head: "Total", number: true, title: "From receipt to end", cell: (trace) => duration(trace.latency_ms) },
  {
    head: "First token",
    number: true,
    title: "Time to first token; streams only",
    cell: (trace) => duration(trace.time_to_first_token_ms),
  },
  {
    head: "Tokens",
    number: true,
    title: "Prompt → completion",
    cell: (trace) => `${count(trace.prompt_tokens)} → ${count(trace.completion_tokens)}`,
  },
  { head: "Score", class: "minor", long: true, number: true, cell: (trace) => points(trace.score) },
  { head: "Tags", long: true, wide: true, cell: (trace, params = {}) => tags(trace.tags, { ...params, cursor: null }) },
];

function status(trace) {
  const { text, tone, means } = STATUS[trace.status] ?? { text: trace.status, tone: "plain" };
  return chip(text, tone, [means, trace.error_message].filter(Boolean).join(" "));
}

function modelOf(trace) {
  if (!trace.fallback_used) return trace.model ?? trace.original_model ?? el("span", { class: "muted" }, "none");
  return [el("s", { class: "muted", title: "Requested model" }, trace.original_model), ` ${trace.model}`];
}

function nodeOf(trace) {
  const name = trace.node_id ?? el("span", { class: "muted" }, "none");
  return trace.retry_count
    ? [
        name,
        el(
          "span",
          { class: "muted", title: "Earlier attempts failed" },
          ` after ${trace.retry_count === 1 ? "a retry" : `${trace.retry_count} retries`}`,
        ),
      ]
    : name;
}
