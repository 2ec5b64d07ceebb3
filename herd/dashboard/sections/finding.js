// One finding of a health check: what was seen, what to do, where to read on.

import { el } from "../dom.js";
import { chip, model, node, prose } from "../parts.js";
import { ago } from "../when.js";
import { SEVERITY } from "../words.js";

export const keyOf = (found) => [found.check_id, found.node_id ?? "", found.model ?? ""].join("|");

export function finding(found, actions = null) {
  const { text, tone } = SEVERITY[found.severity] ?? { text: found.severity, tone: "plain" };
  return el(
    "article",
    { class: `card finding ${tone}`, data: { key: `finding-${keyOf(found)}` } },
    el("header", {}, el("h3", {}, found.title), chip(text, tone)),
    el("p", {}, prose(found.description)),
    found.fix && el("p", {}, el("b", {}, "What to do: "), prose(found.fix)),
    el("p", { class: "muted about" }, about(found)),
    actions && el("footer", {}, actions),
  );
}

function about(found) {
  const parts = [
    found.node_id && node(found.node_id),
    found.model && model(found.model),
    known(found.first_seen) && ["first seen ", ago(found.first_seen)],
    known(found.last_seen) && ["last seen ", ago(found.last_seen)],
    runbook(found.runbook),
    el("code", {}, found.check_id),
  ].filter(Boolean);
  return parts.flatMap((part, index) => (index ? [" · ", part] : [part]));
}

const known = (value) => typeof value === "number";

/** A runbook is a page that the router serves, one elsewhere that a person may open, or a place in the repository. */
function runbook(place) {
  if (!place) return null;
  if (/^(https?:\/\/|\/)/.test(place)) {
    return el("a", { href: place, target: "_blank", rel: "noopener noreferrer" }, "Runbook");
  }
  return ["runbook ", el("code", {}, place)];
}
