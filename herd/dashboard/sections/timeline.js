// A request's phases as bars on one time scale. The table's numbers say the same as the bars.

import { el } from "../dom.js";
import { duration } from "../format.js";
import { table } from "../tables.js";

/** Phases of a trace: {name, from, to, kind}, in milliseconds from receipt. */
export function phases(trace) {
  const attempts = [...trace.attempts].sort((left, right) => left.number - right.number);
  const since = (at) => (at - trace.timestamp) * 1000;
  const first = attempts.length ? since(attempts[0].started_at) : trace.latency_ms;
  const found = [];
  const firstWait = Math.min(trace.queue_ms ?? 0, first);
  if (firstWait > 0) found.push({ name: "Waiting for a slot", from: first - firstWait, to: first, kind: "queue" });
  attempts.forEach((attempt, index) => {
    const before = index ? since(attempts[index - 1].ended_at) : null;
    if (before !== null && since(attempt.started_at) - before >= 1)
      found.push({ name: "Before the next attempt", from: before, to: since(attempt.started_at), kind: "queue" });
    found.push(...ofAttempt(trace, attempt, since, attempts.length > 1));
  });
  return found;
}

function ofAttempt(trace, attempt, since, numbered) {
  const [from, to] = [since(attempt.started_at), since(attempt.ended_at)];
  const whose = `${attempt.model} on ${attempt.node_id}`;
  const whole = {
    name: numbered ? `Attempt ${attempt.number}: ${whose}` : whose,
    from,
    to,
    kind: attempt.error_type ? "failed" : "attempt",
    said: attempt.error_type && `${attempt.error_type}: ${attempt.error_message ?? ""}`,
  };
  if (attempt.error_type && attempt.first_content_at === null) return [whole];
  const content = attempt.first_content_at === null ? null : since(attempt.first_content_at);
  const load = Math.min(trace.load_ms ?? 0, (content ?? to) - from);
  const parts = [whole];
  if (load >= 1) parts.push({ name: "Load", from, to: from + load, kind: "load", inner: true });
  if (!trace.stream) parts.push({ name: "Prefill and decode", from: from + load, to, kind: "decode", inner: true });
  else if (content !== null) {
    parts.push({ name: "Prefill", from: from + load, to: content, kind: "prefill", inner: true });
    parts.push({ name: "Decode", from: content, to, kind: "decode", inner: true });
  }
  return parts;
}

export function timeline(trace) {
  const rows = phases(trace);
  const all = Math.max(trace.latency_ms, 0.001, ...rows.map((row) => row.to));
  if (!rows.length) return el("p", {}, `Ended after ${duration(trace.latency_ms)} without reaching a node.`);
  const share = (ms) => `${(100 * Math.max(0, ms)) / all}%`;
  return [
    table({
      caption: "Phases of the request",
      rows,
      columns: [
        {
          head: "Phase",
          first: true,
          class: "phase",
          cell: (row) => el("span", { class: row.inner ? "inner" : null }, row.name),
        },
        { head: `0 to ${duration(all)}`, label: "", class: "scale", cell: (row) => bar(row, share, all) },
        { head: "Start", number: true, title: "After receipt", cell: (row) => duration(Math.max(0, row.from)) },
        { head: "Duration", number: true, cell: (row) => duration(row.to - row.from) },
      ],
    }),
    trace.load_ms >= 1 &&
      el(
        "p",
        { class: "muted" },
        "The engine reports how long the load took, not when; the bar shows it at the start of the attempt.",
      ),
  ];
}

function bar(row, share, all) {
  return [
    el(
      "span",
      {
        class: "lane",
        "aria-hidden": "true",
        title: `${row.name}: ${duration(row.to - row.from)} of ${duration(all)}`,
      },
      el("span", {
        class: `bar ${row.kind}`,
        style: { left: share(row.from), width: `max(2px, ${share(row.to - row.from)})` },
      }),
    ),
    row.said && el("span", { class: "said" }, row.said),
  ];
}
