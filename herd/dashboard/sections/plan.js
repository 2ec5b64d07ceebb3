// What another node, model, traffic or number of slots would do: the recorded requests, simulated before and after.

import { ApiError, get, lately } from "../api.js";
import { announce, el } from "../dom.js";
import { count, duration, many, moment, NONE, percent } from "../format.js";
import { empty, heading, note, part } from "../parts.js";
import { go } from "../route.js";
import { table } from "../tables.js";

const AGE_MS = 600_000; // a plan takes seconds of a core
const PATIENCE_MS = 70_000;
const DAYS = { 1: "1 day", 3: "3 days", 7: "7 days", 30: "30 days" };
const FIGURES = {
  ttft_p50_s: "First token, p50",
  ttft_p95_s: "First token, p95",
  answer_p50_s: "Whole answer, p50",
  answer_p95_s: "Whole answer, p95",
};
const CHANGES = ["add_node", "remove_node", "add_model", "traffic", "slots"];

const load = async (_route, signal) => {
  const status = await get("/fleet/status", {}, signal);
  return status.nodes.map((each) => each.node_id);
};

function view(nodes, { params }, context) {
  const head = heading("Plan");
  if (!nodes.length)
    return [head, empty("No nodes to plan with", "Plans are made from recorded requests and the nodes.", "herd-node")];
  return [
    head,
    el(
      "p",
      { class: "muted" },
      "Herd simulates the recorded requests before and after a change. The error comes from a back-test: the simulation of what happened, compared with what happened.",
    ),
    form(nodes, params),
    CHANGES.some((name) => params[name]) && result(params, context),
  ];
}

/** The answer to these parameters, or a word about it; it comes later than the rest of the view. */
function result(params, { state, render }) {
  const { share, days } = params;
  const asked = { ...Object.fromEntries(CHANGES.map((name) => [name, params[name]])), share, days };
  const key = JSON.stringify(asked);
  if (state.key !== key) {
    Object.assign(state, { key, found: null });
    lately("/dashboard/api/plan", asked, AGE_MS, undefined, PATIENCE_MS)
      .catch(refused)
      .then((found) => {
        if (state.key !== key) return;
        state.found = found;
        announce(found.error ?? found.verdict);
        render();
      });
  }
  if (!state.found) return el("p", { class: "muted", role: "status" }, "Simulating…");
  return state.found.error ? note(`Nothing was simulated: ${state.found.error}.`, "warn") : answer(state.found);
}

/** A change that cannot be simulated is for the user to correct: the form stays. */
function refused(error) {
  if (error instanceof ApiError) return { error: error.message };
  throw error;
}

function form(nodes, params) {
  const submit = (event) => {
    event.preventDefault();
    go("plan", Object.fromEntries(new FormData(event.currentTarget)));
  };
  return el(
    "form",
    { class: "filters wide", "aria-label": "Change to simulate", on: { submit } },
    text("Add a node", "add_node", params, { placeholder: "RTX 3090, 24 GB" }),
    select("Remove a node", "remove_node", params, { "": "none", ...Object.fromEntries(nodes.map((id) => [id, id])) }),
    text("Add a model", "add_model", params, { placeholder: "qwen3:32b" }),
    text("Share of requests", "share", params, { type: "number", min: 0.01, max: 1, step: 0.01, placeholder: "0.1" }),
    text("Traffic ×", "traffic", params, { type: "number", min: 0.01, max: 100, step: "any", placeholder: "1" }),
    text("Slots", "slots", params, { placeholder: "8, or NODE=8" }),
    select("From the last", "days", params, DAYS),
    el("button", { type: "submit" }, "Simulate"),
  );
}

const field = (label, control) => el("label", { class: "field" }, el("span", {}, label), control);

const text = (label, name, params, more) =>
  field(label, el("input", { type: "text", name, value: params[name] ?? "", autocomplete: "off", ...more }));

const select = (label, name, params, options) =>
  field(
    label,
    el(
      "select",
      { name },
      Object.entries(options).map(([value, words]) =>
        el("option", { value, selected: value === (params[name] ?? "") }, words),
      ),
    ),
  );

function answer(found) {
  const { window: seen } = found;
  return [
    part(
      "Result",
      el("p", { class: "lead" }, found.verdict),
      el("p", { class: "muted" }, `${many(seen.request_count, "request")} since ${moment(seen.since)}.`),
      figures(found),
    ),
    part("By model", groups(found.models, "model", "Model")),
    found.tags.length > 1 && part("By tag", groups(found.tags, "tag", "Tag")),
    part("Nodes", busy(found.nodes)),
    part("Accuracy", found.notes.map((note) => el("p", {}, note))),
  ];
}

const seconds = (value) => (value === null || value === undefined ? NONE : duration(value * 1000));
const share = (value) => (value === null || value === undefined ? NONE : percent(100 * value));
const error = (errors, name) => (errors[name] === undefined ? "unknown" : `± ${percent(100 * errors[name])}`);

function change(before, after) {
  if (!before || after === null) return NONE;
  const by = 100 * (after / before - 1);
  return `${by > 0 ? "+" : by < 0 ? "−" : ""}${percent(Math.abs(by))}`;
}

function figures({ actual, before, after, errors }) {
  const rows = [
    ...Object.entries(FIGURES).map(([name, words]) => ({ name, words, show: seconds })),
    { name: "loads", words: "Model loads", show: count },
    { name: "refused", words: "Rejected requests", show: count },
  ];
  return table({
    caption: "Actual, simulated and planned figures of all requests",
    rows,
    key: (row) => row.name,
    columns: [
      { head: "Figure", first: true, cell: (row) => row.words },
      { head: "Actual", number: true, cell: (row) => row.show(actual[row.name]) },
      { head: "Simulated", number: true, cell: (row) => row.show(before[row.name]) },
      { head: "After the change", number: true, cell: (row) => el("b", {}, row.show(after[row.name])) },
      { head: "Change", number: true, cell: (row) => change(before[row.name], after[row.name]) },
      { head: "Error", number: true, cell: (row) => (row.name === "refused" ? NONE : error(errors, row.name)) },
    ],
  });
}

function groups(rows, column, head) {
  const pair = (text, name) => [
    { head: text, name: `${text} before`, number: true, cell: (row) => seconds(row.before[name]) },
    { head: "After", name: `${text} after`, number: true, cell: (row) => el("b", {}, seconds(row.after[name])) },
    { head: "Error", name: `${text} error`, number: true, cell: (row) => error(row.errors, name) },
  ];
  return table({
    caption: `Before and after by ${column}`,
    rows,
    key: (row) => `${column}-${row[column]}`,
    columns: [
      { head, first: true, class: "named", cell: (row) => row[column] },
      { head: "Requests", number: true, cell: (row) => count(row.after.requests) },
      ...pair("First token p95", "ttft_p95_s"),
      ...pair("Answer p95", "answer_p95_s"),
      { head: "Loads", number: true, cell: (row) => `${count(row.before.loads)} → ${count(row.after.loads)}` },
      { head: "Rejected", number: true, cell: (row) => count(row.after.refused) },
    ],
  });
}

function busy(rows) {
  return table({
    caption: "Share of the time in which each node is at work",
    rows,
    key: (row) => row.node_id,
    columns: [
      { head: "Node", first: true, cell: (row) => row.node_id },
      { head: "Busy before", number: true, cell: (row) => share(row.busy_before) },
      { head: "After", number: true, cell: (row) => share(row.busy_after) },
    ],
  });
}

export const plan = { id: "plan", title: "Plan", letter: "p", load, view };
