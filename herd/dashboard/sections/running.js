// Requests in flight and queued, the oldest first, each with a button that cancels it.

import { ApiError, post } from "../api.js";
import { ask } from "../dialogs.js";
import { announce, el } from "../dom.js";
import { count, many, span } from "../format.js";
import { chip, part, tags } from "../parts.js";
import { table } from "../tables.js";
import { PHASES } from "../words.js";

const SHOWN = 12;

export function running({ requests, timestamp: now }, context) {
  if (!requests.length) return null;
  const said = context.state.cancelled;
  const rest = requests.length - SHOWN;
  return part(
    "Running now",
    table({
      caption: "Requests in flight, oldest first",
      rows: requests.slice(0, SHOWN),
      key: (row) => `running-${row.request_id}`,
      columns: columns(now, context),
    }),
    rest > 0 && el("p", { class: "muted" }, `And ${many(rest, "newer request")}; `, el("code", {}, "herd top"), " shows all."),
    said && el("p", { class: "note bad", role: "alert" }, said),
  );
}

const columns = (now, context) => [
  { head: "Phase", first: true, cell: phase },
  { head: "Model", cell: (row) => row.model ?? el("span", { class: "muted" }, "not known yet") },
  { head: "Node", cell: (row) => row.node_id ?? el("span", { class: "muted" }, "none yet") },
  { head: "Age", number: true, cell: (row) => span(row.age_s) },
  {
    head: "Tokens",
    number: true,
    title: "Completion tokens so far; streams only",
    cell: (row) => count(row.completion_tokens),
  },
  {
    head: "Ends in",
    number: true,
    title: "Predicted",
    cell: (row) => (row.predicted_end === null ? "–" : span(Math.max(0, row.predicted_end - now))),
  },
  { head: "Client", class: "minor", cell: (row) => row.client_ip },
  { head: "Tags", class: "minor", cell: (row) => tags(row.tags, {}) },
  { head: "", cell: (row) => button(row, context) },
];

function phase(row) {
  const { text, tone, means } = PHASES[row.phase] ?? { text: row.phase, tone: "plain" };
  return chip(row.attempts > 1 ? `${text}, attempt ${row.attempts}` : text, tone, means);
}

const button = (row, context) =>
  el(
    "button",
    { type: "button", class: "small", "aria-label": `Cancel request ${row.request_id}`, on: { click: () => cancel(row, context) } },
    "Cancel",
  );

async function cancel(row, context) {
  const text = `${row.request_id}: ${row.model ?? "no model yet"}, ${span(row.age_s)} old. Its client gets an error, and its slot is free at once.`;
  if (!(await ask("Cancel this request?", text, "Cancel request"))) return;
  try {
    await post(`/fleet/requests/${encodeURIComponent(row.request_id)}/cancel`);
    delete context.state.cancelled;
    announce("The request is cancelled.");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    context.state.cancelled = error.message;
  }
  context.reload();
}
