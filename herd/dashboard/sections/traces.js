// All recorded requests, newest first, with search and filters in the address and cursor-based paging.

import { get } from "../api.js";
import { el } from "../dom.js";
import { many } from "../format.js";
import { empty, heading } from "../parts.js";
import { current, go, link, stay } from "../route.js";
import { when } from "../when.js";
import { STATUS } from "../words.js";
import { noTraffic } from "./fleet.js";
import { requestTable } from "./request_table.js";
import * as detail from "./trace.js";

const PAGE = 50;
const TYPING_MS = 350;
const PERIODS = {
  "": "any time",
  "15m": "last 15 minutes",
  "1h": "last hour",
  "24h": "last 24 hours",
  "7d": "last 7 days",
};
const UNITS_S = { m: 60, h: 3600, d: 86_400 };
const ASKED = ["q", "status", "model", "node_id", "tag", "min_latency_ms", "since", "until", "tried", "retried", "cursor"];
const FILTERS = ["q", "status", "model", "node_id", "tag", "min_latency_ms", "period", "since", "until", "tried", "retried"];

async function load(route, signal) {
  if (route.id) return detail.load(route, signal);
  const asked = Object.fromEntries(ASKED.map((name) => [name, route.params[name]]));
  asked.since ??= since(route.params.period);
  const [page, status] = await Promise.all([
    get("/dashboard/api/traces", { ...asked, limit: PAGE }, signal),
    get("/fleet/status", {}, signal),
  ]);
  return { page, status };
}

function since(period) {
  const match = /^(\d+)([mhd])$/.exec(period ?? "");
  return match ? (Date.now() / 1000 - Number(match[1]) * UNITS_S[match[2]]).toFixed(0) : undefined;
}

function view(data, route, context) {
  if (route.id) return detail.view(data, route);
  const { page, status } = data;
  const params = route.params;
  if (context.state.page !== page) Object.assign(context.state, { page, ended: 0 });
  const filtered = FILTERS.some((name) => params[name]);
  return [
    heading("Traces", newer(params, context)),
    filters(params, status),
    between(params),
    page.traces.length
      ? requestTable(page.traces, { caption: "Requests, newest first", params: without(params, "cursor", "focus") })
      : page.searched_until
        ? empty("Nothing found so far", "The search has not reached the oldest requests yet.")
        : filtered || params.cursor
          ? nothing()
          : noTraffic(),
    el(
      "nav",
      { class: "pages", "aria-label": "Pages" },
      params.cursor && el("a", { href: link("traces", without(params, "cursor")) }, "Newest"),
      page.searched_until && el("span", {}, "Searched back to ", when(page.searched_until)),
      page.next_cursor &&
        el(
          "a",
          { href: link("traces", { ...params, cursor: page.next_cursor }) },
          page.searched_until ? "Continue" : "Older",
        ),
    ),
  ];
}

const without = (params, ...names) =>
  Object.fromEntries(Object.entries(params).filter(([name]) => !names.includes(name)));

/** The exact window that a link from elsewhere asked for. */
function between({ since: from, until: to }) {
  if (!from && !to) return null;
  return el("p", { class: "muted" }, "Received", from && [" since ", when(Number(from))], to && [" until ", when(Number(to))]);
}

function nothing() {
  return [
    empty("No matching requests", "No recorded request matches these filters."),
    el("p", {}, el("a", { href: link("traces") }, "Show all requests")),
  ];
}

/** New requests are counted and shown on demand: a list that moves cannot be clicked. */
function newer(params, context) {
  const since = context.state.ended ?? 0;
  const show = () => {
    context.state.ended = 0;
    if (params.cursor) go("traces", without(params, "cursor"));
    else context.reload();
  };
  return [
    !params.follow &&
      since > 0 &&
      el("button", { type: "button", on: { click: show } }, `Show ${many(since, "new request")}`),
    !params.cursor &&
      el(
        "label",
        { class: "check" },
        el("input", {
          type: "checkbox",
          checked: params.follow === "1",
          on: { change: (event) => stay("traces", { ...params, follow: event.currentTarget.checked ? "1" : "" }) },
        }),
        "Follow",
      ),
  ];
}

let typing = null;
window.addEventListener("hashchange", () => {
  const { section, id } = current();
  if (section !== "traces" || id) clearTimeout(typing); // leaving the list cancels the search
});

function filters(params, status) {
  const set = (name, value) => {
    const now = current(); // the address may be ahead of the view, or have left this list
    if (now.section === "traces" && !now.id)
      stay("traces", { ...without(now.params, "cursor", "focus"), [name]: value });
  };
  const typed = (name) => (event) => {
    const { value } = event.currentTarget;
    clearTimeout(typing);
    typing = setTimeout(() => set(name, value.trim()), TYPING_MS);
  };
  const field = (label, name, attributes = {}) =>
    el(
      "label",
      { class: "field" },
      el("span", {}, label),
      el("input", {
        type: "text",
        value: params[name] ?? "",
        autocomplete: "off",
        spellcheck: "false",
        ...attributes,
        on: { input: typed(name) },
      }),
    );
  const select = (label, name, options) =>
    el(
      "label",
      { class: "field" },
      el("span", {}, label),
      el(
        "select",
        { on: { change: (event) => set(name, event.currentTarget.value) } },
        Object.entries(options).map(([value, text]) =>
          el("option", { value, selected: value === (params[name] ?? "") }, text),
        ),
      ),
    );
  const named = Object.fromEntries(status.nodes.map((node) => [node.node_id, node.node_id]));
  for (const gone of [params.node_id, params.tried]) if (gone) named[gone] ??= gone;
  return el(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": "Filter requests",
      on: { submit: (event) => event.preventDefault() },
    },
    field("Search", "q", { type: "search", placeholder: "id, trace id, model, node, error, tag", class: "search" }),
    select("Status", "status", {
      "": "any",
      errors: "errors (failed or incomplete)",
      ...Object.fromEntries(Object.entries(STATUS).map(([key, { text }]) => [key, text])),
    }),
    field("Model", "model", { list: "model-names", placeholder: "any" }),
    names(status),
    select("Node", "node_id", { "": "any", ...named }),
    select("Failed attempt at", "tried", { "": "any", ...named }),
    select("Retried", "retried", { "": "any", true: "yes", false: "no" }),
    field("Tag", "tag", { placeholder: "any" }),
    field("Slower than (ms)", "min_latency_ms", { type: "number", min: "0", placeholder: "any" }),
    select("Received", "period", PERIODS),
    FILTERS.some((name) => params[name]) && el("a", { class: "clear", href: link("traces") }, "Clear filters"),
  );
}

function names(status) {
  const all = new Set(status.nodes.flatMap((node) => node.ollama.models_available));
  return el(
    "datalist",
    { id: "model-names" },
    [...all].sort().map((name) => el("option", { value: name })),
  );
}

export const traces = {
  id: "traces",
  title: "Traces",
  letter: "t",
  load,
  view,
  live: (route) =>
    route.id || route.params.cursor || route.params.follow !== "1"
      ? null
      : { on: ["request", "dropped"], least_ms: 2000 },
  heard(kind, data, context) {
    if (context.route.id || (kind !== "request" && kind !== "dropped")) return false;
    context.state.ended = (context.state.ended ?? 0) + (kind === "dropped" ? data.count : 1);
    return true;
  },
};
