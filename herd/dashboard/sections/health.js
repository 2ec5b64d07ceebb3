// The findings, worst first, with what to do about each; then every check, the passing too.

import { get } from "../api.js";
import { el } from "../dom.js";
import { many } from "../format.js";
import { chip, figure, heading, part } from "../parts.js";
import { table } from "../tables.js";
import { ago } from "../when.js";
import { isQuiet } from "../verdict.js";
import { SEVERITY } from "../words.js";
import { finding } from "./finding.js";

const ORDER = { critical: 0, warning: 1, info: 2 };

const load = (_route, signal) => get("/dashboard/api/health", {}, signal);

function view(health, _route, context) {
  const found = [...health.recommendations].sort((left, right) => ORDER[left.severity] - ORDER[right.severity]);
  const open = found.filter((each) => !isQuiet(each));
  const of = (severity) => found.filter((each) => each.severity === severity).length;
  return [
    heading("Health"),
    el(
      "section",
      { class: `verdict ${tone(open)}`, "aria-label": "Score" },
      el(
        "p",
        { class: "verdict-line", role: "status" },
        el("span", { class: "mark", "aria-hidden": "true" }),
        sentence(open, found),
      ),
      el(
        "div",
        { class: "figures" },
        figure(
          String(health.health_score),
          "of 100",
          null,
          health.health_score >= 90 ? "good" : health.health_score >= 60 ? "warn" : "bad",
          "100, less 20 for each critical finding and 10 for each warning",
        ),
        figure(String(of("critical")), "critical", null, of("critical") ? "bad" : ""),
        figure(String(of("warning")), of("warning") === 1 ? "warning" : "warnings", null, of("warning") ? "warn" : ""),
        figure(String(of("info")), "to know"),
        figure(ago(unix(health.checked_at)), "checked"),
      ),
    ),
    open.length > 0 &&
      part(
        "Findings",
        el(
          "div",
          { class: "findings" },
          open.map((each) => finding(each)),
        ),
      ),
    found.length > open.length &&
      part(
        "Acknowledged or silenced",
        el(
          "div",
          { class: "findings" },
          found.filter(isQuiet).map((each) => finding(each)),
        ),
      ),
    part("Checks", checks(health.checks)),
  ];
}

export const unix = (moment) => (typeof moment === "string" ? Date.parse(moment) / 1000 : moment);

function tone(open) {
  const worst = Math.min(...open.map((each) => ORDER[each.severity]), 2);
  return ["bad", "warn", "good"][worst];
}

function sentence(open, found) {
  const serious = open.filter((each) => each.severity !== "info").length;
  if (serious) return `${many(serious, "finding needs", "findings need")} a look.`;
  return found.length ? "Nothing needs a look; there is something to know." : "Every check passes.";
}

function checks(rows) {
  return table({
    caption: "All checks",
    rows,
    key: (row) => `check-${row.check_id}`,
    columns: [
      {
        head: "Check",
        first: true,
        cell: (row) => el("span", { title: row.check_id }, row.title ?? row.check_id.replaceAll("_", " ")),
      },
      {
        head: "Now",
        cell: (row) =>
          /^(pass|ok)/.test(row.status)
            ? chip("passes", "good")
            : chip(SEVERITY[row.severity]?.text ?? row.status, SEVERITY[row.severity]?.tone ?? "plain"),
      },
      { head: "Asks", wide: true, cell: (row) => row.finds ?? row.description ?? "" },
    ],
  });
}

export const health = {
  id: "health",
  title: "Health",
  letter: "h",
  load,
  view,
  live: () => ({ on: ["fleet"], least_ms: 2000, every_ms: 10_000 }),
};
