// Recommendations: suggested placement, models without a place, and per node what fits and what to remove.

import { get } from "../api.js";
import { el } from "../dom.js";
import { brief, count, gibibytes, many, percent, points } from "../format.js";
import { chip, copyButton, empty, facts, heading, meter, part, prose } from "../parts.js";
import { table } from "../tables.js";
import { when } from "../when.js";

const PRIORITY = { high: "warn", medium: "plain", low: "plain" };

const load = (_route, signal) => get("/dashboard/api/recommendations", {}, signal);

function view(found) {
  const head = heading("Recommendations");
  if (!found.nodes.length) {
    const text =
      "Recommendations depend on the nodes' hardware and on traffic. Start the agent on a machine that runs Ollama.";
    return [head, empty("No nodes yet", text, "herd-node")];
  }
  const { fleet, nodes, requests, window_days: days } = found;
  return [
    head,
    el(
      "p",
      { class: "muted" },
      `Based on ${many(requests, "request")} in the last ${days} days. Updated `,
      when(found.generated_at),
      ".",
    ),
    part("Suggested placement", mix(fleet, nodes)),
    fleet.missing.length > 0 && part("Requested models without a place", missing(fleet.missing)),
    part("By category", coverage(fleet.coverage)),
    nodes.map((node) => part(node.node_id, nodeAdvice(node))),
  ];
}

function mix({ mix: placements, usable_memory_gb: usable }) {
  const taken = placements.reduce((sum, each) => sum + each.ram_gb, 0);
  if (!placements.length) return el("p", {}, "No requests yet for models that could be placed.");
  return [
    el("div", { class: "meters" }, meter("Memory", taken / usable, `${gibibytes(taken)} of ${gibibytes(usable)}`)),
    table({
      caption: "Suggested placement of models on nodes",
      rows: placements,
      key: (row) => `mix-${row.node_id}-${row.model}`,
      columns: [
        { head: "Model", first: true, class: "named", cell: named },
        { head: "Node", class: "kept", cell: (row) => row.node_id },
        { head: "Requests", number: true, cell: (row) => count(row.requests) },
        { head: "Memory", number: true, cell: (row) => gibibytes(row.ram_gb) },
        { head: "Speed", number: true, cell: speed },
        { head: "Pulled", cell: there },
        { head: "Why", wide: true, cell: (row) => prose(row.reason) },
      ],
    }),
  ];
}

function missing(rows) {
  return table({
    caption: "Requested models without a place",
    rows,
    key: (row) => `missing-${row.model}`,
    columns: [
      { head: "Model", first: true, cell: (row) => row.model },
      { head: "Requests", number: true, cell: (row) => brief(row.requests) },
      { head: "Memory", number: true, cell: (row) => (row.ram_gb === null ? "unknown" : gibibytes(row.ram_gb)) },
      { head: "Why", wide: true, cell: (row) => prose(row.reason) },
    ],
  });
}

function coverage(categories) {
  return table({
    caption: "Available models by category",
    rows: Object.entries(categories),
    key: ([name]) => `category-${name}`,
    columns: [
      { head: "Category", first: true, cell: ([name]) => name },
      { head: "Covered", cell: ([, each]) => (each.covered ? chip("yes", "good") : chip("no model", "warn")) },
      { head: "Requests", number: true, cell: ([, each]) => count(each.requests) },
      { head: "Models", wide: true, cell: ([, each]) => each.models.join(", ") },
      { head: "Nodes", wide: true, cell: ([, each]) => each.nodes.join(", ") },
    ],
  });
}

function nodeAdvice(node) {
  return [
    facts([
      ["Memory for models", gibibytes(node.usable_memory_gb)],
      ["Total", gibibytes(node.total_memory_gb)],
      ["Left by this placement", gibibytes(node.headroom_gb)],
      ["Hardware", hardware(node.hardware)],
      [
        "On disk",
        node.current_models.map((each) => each.model + (each.loaded ? " (loaded)" : "")).join(", ") || "no model",
        true,
      ],
    ]),
    node.recommended_models.length > 0 && recommended(node),
    node.status === "offline" && el("p", { class: "muted" }, "No recommendations: the node is offline."),
    node.draining && el("p", { class: "muted" }, "No recommendations: the node is draining."),
    node.drop.length > 0 && dropped(node),
  ];
}

function hardware(found) {
  if (!found) return "unknown";
  return `${found.chip ?? ""} ${count(found.bandwidth_gb_s)} GB/s${found.assumed ? ", assumed" : ""}`.trim();
}

function recommended(node) {
  return table({
    caption: `Models for ${node.node_id}`,
    rows: node.recommended_models,
    key: (row) => `advice-${row.model}`,
    columns: [
      { head: "Model", first: true, class: "named", cell: named },
      { head: "Category", cell: (row) => row.category ?? "–" },
      { head: "Priority", cell: (row) => chip(row.priority, row.already_available ? "good" : PRIORITY[row.priority]) },
      { head: "Memory", number: true, cell: (row) => gibibytes(row.ram_gb) },
      { head: "Quality", number: true, cell: quality },
      { head: "Speed", number: true, cell: speed },
      { head: "Pulled", cell: (row) => (row.already_available ? there(row) : pull(row.model)) },
      { head: "Why", wide: true, cell: (row) => prose(row.reason) },
    ],
  });
}

function dropped(node) {
  return [
    el("h3", {}, "Can be removed"),
    el(
      "ul",
      { class: "plain" },
      node.drop.map((each) => el("li", {}, el("b", {}, each.model), " ", prose(each.reason))),
    ),
  ];
}

function named(row) {
  return [row.model, row.display_name !== row.model && el("div", { class: "muted" }, row.display_name)];
}

function quality(row) {
  if (row.quality_score === null) return "–";
  const title = row.quality ? `${row.quality.benchmark}, ${row.quality.source}` : null;
  return el("span", { title }, percent(row.quality_score));
}

function speed(row) {
  if (row.tokens_per_s === null) return "–";
  const title = row.speed_source === "measured" ? "Measured on this node" : "Estimated from memory bandwidth";
  return el("span", { title }, `${row.speed_source === "measured" ? "" : "≈ "}${points(row.tokens_per_s, 0)} tok/s`);
}

const there = (row) => (row.already_available ? chip("yes", "good") : chip("not yet", "warn"));
const pull = (name) => copyButton(`ollama pull ${name}`, "Copy pull", `command for ${name}`);

export const recommendations = {
  id: "recommendations",
  title: "Recommendations",
  letter: "c",
  load,
  view,
};
