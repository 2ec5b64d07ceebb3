// The findings, worst first, each with its fix; then all checks, and resolved findings.

import { get } from "../api.js";
import { sentence } from "../changes.js";
import { el } from "../dom.js";
import { many, span } from "../format.js";
import { chip, empty, figure, heading, part, prose } from "../parts.js";
import { link, runbook } from "../route.js";
import { table } from "../tables.js";
import { isQuiet } from "../verdict.js";
import { ago, when } from "../when.js";
import { CHANGES, SEVERITY } from "../words.js";
import { finding } from "./finding.js";

const PAST = 30;
const EVENTS = 50;
const TONES = { critical: "bad", warning: "warn", info: "good" };
const CHECK = {
  pass: () => chip("passing", "good"),
  fail: ({ severity }) => chip(SEVERITY[severity]?.text ?? "failing", SEVERITY[severity]?.tone ?? "warn"),
  silenced: () => chip("silenced"),
  unknown: () => chip("unknown", "warn", "The trace store cannot be read."),
};

async function load(_route, signal) {
  const [health, past, happened] = await Promise.all([
    get("/dashboard/api/health", {}, signal),
    get("/dashboard/api/health/findings", { state: "resolved", limit: PAST }, signal),
    get("/dashboard/api/events", { limit: EVENTS }, signal),
  ]);
  return { health, past: past.findings, events: happened.events.filter((each) => CHANGES[each.kind]) };
}

function view({ health, past, events }, _route, context) {
  const found = health.recommendations;
  const open = found.filter((each) => !isQuiet(each));
  const serious = open.filter((each) => each.severity !== "info");
  const known = open.filter((each) => each.severity === "info");
  const quiet = found.filter(isQuiet);
  const cards = (findings) =>
    el(
      "div",
      { class: "findings" },
      findings.map((each) => finding(each, context)),
    );
  const tone = TONES[open[0]?.severity] ?? "good";
  return [
    heading("Health"),
    el(
      "section",
      { class: `verdict ${tone}`, "aria-label": "Fleet health" },
      el(
        "p",
        { class: "verdict-line", role: "status" },
        el("span", { class: "mark", "aria-hidden": "true" }),
        inWords(serious.length, found),
      ),
      el("div", { class: "figures" }, figures(health, found, tone)),
    ),
    !health.vitals.nodes_total &&
      empty(
        "No nodes yet",
        "Node checks need at least one node. Start the agent on a machine that runs Ollama.",
        "herd-node",
      ),
    serious.length > 0 && part("Findings", cards(serious)),
    known.length > 0 && part("For information", cards(known)),
    quiet.length > 0 && part("Acknowledged or silenced", cards(quiet)),
    part("Checks", checks(health.checks)),
    events.length > 0 && part("Events", latest(events)),
    past.length > 0 && part("Resolved", history(past)),
  ];
}

function figures({ health_score: score, checked_at: at }, found, tone) {
  const of = (severity) => found.filter((each) => each.severity === severity).length;
  const title = "100 minus, per check, 60 (critical) or 20 (warning) times the affected share of the fleet; silenced findings do not count";
  return [
    figure(String(score), "of 100", null, tone, title),
    figure(String(of("critical")), "critical", null, of("critical") ? "bad" : ""),
    figure(String(of("warning")), of("warning") === 1 ? "warning" : "warnings", null, of("warning") ? "warn" : ""),
    figure(String(of("info")), "info"),
    figure(ago(at), "checked"),
  ];
}

function inWords(serious, found) {
  if (serious) return `${many(serious, "finding needs", "findings need")} attention.`;
  return found.length ? "No findings need attention." : "All checks pass.";
}

function checks(rows) {
  return table({
    caption: "All checks",
    rows,
    key: (row) => `check-${row.check_id}`,
    columns: [
      { head: "Check", first: true, cell: (row) => el("a", { href: runbook(row.runbook) }, el("code", {}, row.check_id)) },
      { head: "Status", class: "beside", cell: (row) => (CHECK[row.status] ?? (() => row.status))(row) },
      { head: "Finds", wide: true, cell: (row) => prose(row.finds) },
      { head: "Thresholds", wide: true, cell: thresholds },
    ],
  });
}

function thresholds(row) {
  return Object.entries(row.thresholds ?? {}).map(([name, value]) =>
    el("div", { class: "threshold" }, el("a", { href: link("settings", { q: name }) }, name), ` ${value}`),
  );
}

function latest(events) {
  return table({
    caption: "Fleet and router events, newest first",
    rows: events,
    key: (row) => `event-${row.at}-${row.kind}-${row.node_id}-${row.model}`,
    columns: [
      { head: "Event", first: true, cell: sentence },
      { head: "When", cell: (row) => when(row.at) },
    ],
  });
}

function history(past) {
  return table({
    caption: "Resolved findings, newest first",
    rows: past,
    key: (row) => `past-${row.id}`,
    columns: [
      { head: "Finding", first: true, cell: (row) => row.title },
      { head: "Severity", class: "beside", cell: (row) => chip(row.severity, SEVERITY[row.severity]?.tone) },
      { head: "Started", cell: (row) => when(row.first_seen) },
      { head: "Duration", number: true, cell: (row) => span(row.last_seen - row.first_seen) },
      { head: "Note", wide: true, cell: (row) => row.acknowledged?.note ?? "" },
    ],
  });
}

export const health = {
  id: "health",
  title: "Health",
  letter: "h",
  load,
  view,
  live: () => ({ on: ["fleet", "finding"], least_ms: 2000, every_ms: 10_000 }),
};
