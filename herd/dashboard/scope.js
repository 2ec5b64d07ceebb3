// The scope of a section's numbers: time window, node, model, tag. One filter bar for all sections, kept in the
// address, passed on to the router and to the files that it offers.

import { lately, query } from "./api.js";
import { el } from "./dom.js";
import { many } from "./format.js";
import { empty, heading, picker } from "./parts.js";
import { at } from "./place.js";
import { current, go, link } from "./route.js";

const NAMES = { node_id: "Node", model: "Model", tag: "Tag" };
const NAMES_AGE_MS = 60_000;
const NAMES_DAYS = 30;
const MOST_NAMES = 200; // of a fleet where each user is a tag, the busiest; any other can stand in the address

/** The parameters of the address that are sent to the router as filters. */
export const scopeOf = (params) =>
  Object.fromEntries(Object.keys(NAMES).flatMap((name) => (params[name] ? [[name, params[name]]] : [])));

/** The options: every node, and the models and tags of the last 30 days. */
export async function namesOf(signal) {
  const asked = (path) => lately(path, { days: NAMES_DAYS }, NAMES_AGE_MS, signal);
  const [status, models, apps] = await Promise.all([
    lately("/fleet/status", {}, NAMES_AGE_MS, signal),
    asked("/dashboard/api/models"),
    asked("/dashboard/api/apps"),
  ]);
  const held = status.nodes.flatMap((node) => node.ollama.models_available);
  return {
    node_id: status.nodes.map((node) => node.node_id),
    model: [...(models?.data ?? []).map((row) => row.model), ...held],
    tag: (apps?.data ?? []).map((row) => row.tag),
  };
}

/** The head of a section: title, choice of the window (`asked` names it to the router), files, and the filters. */
export function scoped({ section, title, params, names, window, asked }) {
  return [
    heading(title, window, files(section, { ...asked, ...scopeOf(params) })),
    el(
      "div",
      { class: "filters", role: "group", "aria-label": "Filters" },
      Object.entries(NAMES).map(([name, label]) =>
        picker(label, options(names[name], params[name]), params[name], (value) =>
          go(section, { ...current().params, [name]: value }), // the address may be ahead of what is shown
        ),
      ),
      isScoped(params) && el("a", { class: "clear", href: link(section, unscoped(params)) }, "Clear filters"),
    ),
  ];
}

export const isScoped = (params) => Object.keys(scopeOf(params)).length > 0;

const unscoped = (params) => ({ ...params, ...Object.fromEntries(Object.keys(NAMES).map((name) => [name, ""])) });

/** Shown when nothing matches: the active filters, and what to do. */
export function nothingPasses(params) {
  const on = Object.entries(scopeOf(params)).map(([name, value]) => `${NAMES[name].toLowerCase()} ${value}`);
  return empty(
    "No matching requests in this window",
    `${many(on.length, "active filter")}: ${on.join(", ")}. Choose a longer window, or clear the filters.`,
  );
}

function options(names, chosen) {
  const all = new Set([...names.filter(Boolean).slice(0, MOST_NAMES), chosen].filter(Boolean));
  return { "": "all", ...Object.fromEntries([...all].sort().map((each) => [each, each])) };
}

/** Links to the same numbers as files: for a spreadsheet, and for a program. */
function files(section, params) {
  const file = (format) => {
    const href = at(`/dashboard/api/${section}${query({ ...params, format })}`);
    return el("a", { class: "quiet", download: `herd-${section}.${format}`, href }, format.toUpperCase());
  };
  return el("span", { class: "files" }, file("csv"), file("json"));
}
