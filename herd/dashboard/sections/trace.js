// One request: outcome, timeline, candidates, and why other nodes were excluded.

import { get, lately } from "../api.js";
import { el } from "../dom.js";
import { count, duration, points } from "../format.js";
import { chip, copyButton, facts, heading, model, node, note, part, tags } from "../parts.js";
import { at } from "../place.js";
import { link } from "../route.js";
import { table } from "../tables.js";
import { exactly } from "../when.js";
import { SIGNALS, STATUS } from "../words.js";
import { timeline } from "./timeline.js";

const SETTINGS_AGE_MS = 60_000;

export async function load(route, signal) {
  const [trace, settings] = await Promise.all([
    get(`/dashboard/api/traces/${encodeURIComponent(route.id)}`, {}, signal),
    lately("/dashboard/api/settings", {}, SETTINGS_AGE_MS, signal).catch(() => null), // only needed for the trace link
  ]);
  return { trace, settings };
}

export function view({ trace, settings }, route) {
  const { text, tone, means } = STATUS[trace.status] ?? { text: trace.status, tone: "plain", means: "" };
  return [
    heading("Request", el("a", { rel: "up", href: link("traces", route.params) }, "All traces")),
    el("p", { class: "lead" }, chip(text, tone, means), el("span", {}, sentence(trace))),
    trace.error_type && note(`${trace.error_type}: ${trace.error_message ?? ""}`, "bad"),
    figures(trace),
    part("Where the time went", timeline(trace)),
    trace.decision ? decision(trace) : part("Decision", el("p", {}, `No decision: ${trace.decision_missing}.`)),
    part("Details", details(trace)),
    part("IDs", ids(trace, settings)),
  ];
}

function sentence(trace) {
  const what = [trace.original_model ? `${trace.original_model} at ${trace.endpoint}` : trace.endpoint];
  const served = trace.node_id
    ? ["answered by ", node(trace.node_id), trace.fallback_used ? [" with ", model(trace.model)] : null]
    : ["by no node"];
  return [what, ", ", served, `, HTTP ${trace.http_status}`];
}

const known = (value) => value !== null && value !== undefined;

function figures(trace) {
  return facts(
    [
      ["Total", el("span", { title: "From receipt to end" }, duration(trace.latency_ms))],
      [
        "First token",
        [
          duration(trace.time_to_first_token_ms),
          known(trace.predicted_ttft_ms) &&
            el("small", { class: "muted" }, `predicted ${duration(trace.predicted_ttft_ms)}`),
        ],
      ],
      ["Per token", duration(trace.time_per_output_token_ms)],
      ["Queue", duration(trace.queue_ms)],
      ["Load", duration(trace.load_ms)],
      ["Router overhead", duration(trace.overhead_ms)],
      [
        "Tokens",
        [
          `${count(trace.prompt_tokens)} → ${count(trace.completion_tokens)}`,
          known(trace.cached_tokens) && el("small", { class: "muted" }, `${count(trace.cached_tokens)} cached`),
        ],
      ],
      ["Score", points(trace.score)],
    ],
    "facts row",
  );
}

function decision(trace) {
  const { plan, rejected, replays } = trace.decision;
  return part(
    "Decision",
    el("p", {}, trace.decision.why),
    plan.length > 0 && candidates(trace, plan, trace.decision.unit),
    rejected.length > 0 && [
      el("h3", {}, "Excluded"),
      table({
        caption: "Nodes excluded before scoring",
        rows: rejected,
        columns: [
          { head: "Node", first: true, cell: (entry) => entry.node_id },
          { head: "Model", cell: (entry) => entry.model },
          { head: "Why", wide: true, cell: (entry) => el("span", { title: entry.reason }, entry.why) },
        ],
      }),
    ],
    replays === null
      ? el("p", { class: "muted" }, "Recorded by an older version whose signals were points, highest first.")
      : replays
      ? el("p", { class: "muted" }, "Replayed from the stored inputs: same decision.")
      : note(
          "Replayed from the stored inputs: different decision, because the rules have changed since. `herd explain` shows both.",
          "warn",
        ),
  );
}

function candidates(trace, plan, unit) {
  const outcome = (entry) => {
    const attempts = trace.attempts.filter((each) => each.node_id === entry.node_id && each.model === entry.model);
    if (!attempts.length) return null;
    return attempts.some((each) => !each.error_type) ? chip("answered", "good") : chip("failed", "bad");
  };
  const numbers = plan.flatMap((entry) => Object.values(entry.signals));
  const range = { low: Math.min(0, ...numbers), high: Math.max(0, ...numbers) };
  const several = new Set(plan.map((entry) => entry.model)).size > 1;
  return table({
    caption: `Candidates, best first, with each signal in ${unit}`,
    rows: plan,
    rowClass: (entry) => (entry.node_id === trace.node_id && entry.model === trace.model ? "chosen" : ""),
    columns: [
      {
        head: "Candidate",
        first: true,
        cell: (entry) => [entry.node_id, " ", outcome(entry), several && el("div", { class: "muted" }, entry.model)],
      },
      { head: "Loaded", cell: (entry) => (entry.loaded ? "yes" : entry.warm ? "loading" : "no") },
      {
        head: "First token",
        number: true,
        title: "Predicted time to first token",
        cell: (entry) => duration(entry.predicted_ttft_s * 1000),
      },
      ...Object.entries(SIGNALS).map(([name, signal]) => ({
        head: signal.text,
        number: true,
        class: "signal",
        title: signal.asks,
        cell: (entry) => diverging(entry.signals[name], range, unit),
      })),
      { head: "Total", number: true, class: "total", cell: (entry) => el("b", {}, points(entry.total, 2)) },
    ],
  });
}

/** The number, and below it a bar from zero: negative seconds are a saving; of points, more is better. */
function diverging(value, { low, high }, unit) {
  const range = high - low || 1;
  const at = (number) => (100 * (number - low)) / range;
  const [from, to] = [Math.min(0, value), Math.max(0, value)].map(at);
  const against = unit === "seconds" ? value > 0 : value < 0;
  return el(
    "span",
    { class: "diverging" },
    points(value, 2),
    el(
      "span",
      { class: "track", "aria-hidden": "true" },
      low < 0 && high > 0 && el("span", { class: "zero", style: { left: `${at(0)}%` } }),
      el("span", { class: `fill ${against ? "against" : ""}`, style: { left: `${from}%`, width: `${to - from}%` } }),
    ),
  );
}

function details(trace) {
  return facts([
    ["Received", exactly(trace.timestamp)],
    ["Ended", exactly(trace.finished_at)],
    ["Dialect", trace.original_format],
    ["Streamed", trace.stream ? "yes" : "no"],
    ["Requested", trace.original_model],
    ["Served", trace.model],
    ["Fallback", trace.fallback_used ? trace.fallback_reason : null],
    ["Finish reason", trace.finish_reason],
    ["Retries", count(trace.retry_count)],
    ["Failed on", trace.excluded_nodes?.join(", ")],
    ["Token counts", trace.tokens_source],
    ["Reasoning tokens", known(trace.reasoning_tokens) && count(trace.reasoning_tokens)],
    ["Tags", trace.tags?.length ? tags(trace.tags) : null],
    ["Client", trace.client_ip],
    ["Key", trace.api_key_id],
  ]);
}

function ids(trace, settings) {
  const rows = [
    ["Request", trace.request_id],
    ["Trace", trace.trace_id],
    ["Span", trace.span_id],
  ].filter(([, id]) => id);
  return [
    el(
      "dl",
      { class: "facts ids" },
      rows.map(([name, id]) =>
        el(
          "div",
          {},
          el("dt", {}, name),
          el("dd", {}, el("code", {}, id), copyButton(id, "Copy", `the ${name.toLowerCase()} id`)),
        ),
      ),
    ),
    el(
      "p",
      {},
      el(
        "a",
        { href: at(`/dashboard/api/traces/${encodeURIComponent(trace.request_id)}`), target: "_blank", rel: "noopener" },
        "View as JSON",
      ),
      elsewhere(trace, settings),
    ),
  ];
}

/** A link to the trace at the setting `trace_url`; only http and https. */
function elsewhere(trace, settings) {
  const template = settings?.settings.find((each) => each.name === "trace_url")?.value;
  if (!template || !trace.trace_id) return null;
  const address = template.replaceAll("{trace_id}", encodeURIComponent(trace.trace_id));
  const right = URL.canParse(address) && ["http:", "https:"].includes(new URL(address).protocol);
  return right && [" · ", el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "Spans")];
}
