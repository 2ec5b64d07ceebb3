// How accurate the predictions are that routing decides by: predicted against actual, by node, model and part.

import { el } from "../dom.js";
import { count, duration, many, percent } from "../format.js";
import { numbers, table } from "../tables.js";

const PARTS = { queue: "Queue", load: "Load", prefill: "Prompt", decode: "Answer" };
const LITTLE_PCT = 10; // nobody routes better for less

export function calibration({ total, data, every }, params) {
  const most = Math.max(...data.flatMap((row) => [row.predicted_ttft_ms, row.actual_ttft_ms]));
  return [
    el("p", {}, sentence(total)),
    el(
      "p",
      { class: "muted" },
      every > 1 ? `Streams with one attempt, one in ${every} sampled.` : "Streams with one attempt.",
      " Errors are relative to the actual time to first token.",
    ),
    table({
      caption: "Predicted and actual times by node and model",
      rows: data,
      key: (row) => `calibration-${row.node_id}-${row.model}`,
      view: { section: "latency", params },
      columns: [
        { head: "Node", first: true, sort: (row) => row.node_id, cell: named },
        numbers("Streams", "stream_count", count),
        numbers("Error p50", "p50_error_pct", percent),
        numbers("p90", "p90_error_pct", percent, "p90 error"),
        { ...numbers("Bias", "bias_pct", signed), title: "Predicted over actual, all streams together: + is too long" },
        { head: `0 to ${duration(most)}`, class: "spread", cell: (row) => bars(row, most) },
        pair("First token", "ttft"),
        ...Object.entries(PARTS).map(([name, text]) => pair(text, name)),
      ],
    }),
  ];
}

function sentence({ stream_count: streams, p50_error_pct: p50, p90_error_pct: p90, bias_pct: bias }) {
  const way =
    Math.abs(bias) < LITTLE_PCT
      ? "There is no systematic error."
      : `On average they are ${percent(Math.abs(bias))} too ${bias < 0 ? "short" : "long"}.`;
  return `${many(streams, "stream")}: the median error of the predicted time to first token is ${percent(p50)}, the 90th percentile ${percent(p90)}. ${way}`;
}

const named = (row) => [row.node_id, el("div", { class: "muted" }, row.model)];

const signed = (value) => (value > 0 ? `+${percent(value)}` : value < 0 ? `−${percent(-value)}` : percent(value));

const pair = (head, name) => ({
  head,
  name,
  number: true,
  title: "Means: predicted above, actual below",
  sort: (row) => row[`actual_${name}_ms`],
  cell: (row) => [
    el("div", { class: "muted" }, duration(row[`predicted_${name}_ms`])),
    duration(row[`actual_${name}_ms`]),
  ],
});

/** Two bars on one scale, predicted above actual: who is much longer than the other stands out. */
function bars(row, most) {
  const bar = (name) =>
    el(
      "span",
      { class: "track spread-bar" },
      el("span", { class: `fill ${name}`, style: { width: `${most ? (100 * row[`${name}_ttft_ms`]) / most : 0}%` } }),
    );
  return el("span", { class: "bars", "aria-hidden": "true", title: "Predicted above, actual below" }, [
    bar("predicted"),
    bar("actual"),
  ]);
}
