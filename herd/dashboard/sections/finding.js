// One health finding: description, fix, runbook link, and the operator's acknowledgement.

import { el } from "../dom.js";
import { many } from "../format.js";
import { chip, model, node, prose } from "../parts.js";
import { link, runbook } from "../route.js";
import { ago, when } from "../when.js";
import { SEVERITY } from "../words.js";
import { actions } from "./finding_actions.js";

export function finding(found, context) {
  const { text, tone } = SEVERITY[found.severity] ?? { text: found.severity, tone: "plain" };
  return el(
    "article",
    { class: `card finding ${tone}`, data: { key: `finding-${found.id ?? found.title}` }, "aria-label": found.title },
    el("header", {}, el("h3", {}, found.title), chip(text, tone)),
    found.parts?.length
      ? el("ul", { class: "subjects" }, found.parts.map(subject))
      : el("p", {}, prose(found.description)),
    el("p", {}, el("b", {}, "What to do: "), prose(found.fix)),
    listing(found),
    found.acknowledged && el("p", {}, el("b", {}, "Acknowledged "), when(found.acknowledged.at), note(found)),
    found.silenced_until && el("p", {}, el("b", {}, "Silenced until "), when(found.silenced_until)),
    el("footer", {}, el("p", { class: "muted" }, about(found)), actions(found, context)),
  );
}

// One node or model of a finding that covers several.
const subject = (each) =>
  el(
    "li",
    {},
    each.model && model(each.model),
    each.model && each.node_id && " on ",
    each.node_id && node(each.node_id),
    ": ",
    prose(each.description),
    " ",
    listing(each),
  );

// The requests that the finding counted.
function listing({ data: { shows } }) {
  if (!shows) return null;
  const text = shows.what === "retry" ? "Show the requests that were retried" : `Show ${shows.count === 1 ? "this" : "these"} ${many(shows.count, shows.what)}`;
  return el("a", { class: "shows", href: link("traces", shows.filters) }, text);
}

const note = (found) => (found.acknowledged.note ? `: ${found.acknowledged.note}` : null);

function about(found) {
  const parts = [
    found.node_id && node(found.node_id),
    found.model && model(found.model),
    ["first seen ", ago(found.first_seen)],
    found.runbook && el("a", { href: runbook(found.runbook) }, "Runbook"),
  ].filter(Boolean);
  return parts.flatMap((part, index) => (index ? [" · ", part] : [part]));
}
