// Settings: run-time settings are edited here, with the router's answer next to each.

import { ApiError, forgetAnswers, get, post } from "../api.js";
import { announce, el } from "../dom.js";
import { chip, heading, part, prose } from "../parts.js";
import { stay } from "../route.js";
import { table } from "../tables.js";

const SOURCES = {
  default: "default",
  file: "file",
  environment: "environment",
  "command line": "command line",
  "run time": "changed here",
};

const load = (_route, signal) => get("/dashboard/api/settings", {}, signal);

function view({ settings: all, file }, route, context) {
  const wanted = (route.params.q ?? "").toLowerCase();
  const rows = all.filter((row) => `${row.name} ${row.help}`.toLowerCase().includes(wanted));
  const groups = [
    ["Take effect immediately", rows.filter((row) => row.runtime && !row.name.startsWith("health_"))],
    ["Health check thresholds", rows.filter((row) => row.runtime && row.name.startsWith("health_"))],
    ["Requires a restart", rows.filter((row) => !row.runtime)],
  ];
  const search = (event) => stay("settings", { q: event.currentTarget.value });
  return [
    heading(
      "Settings",
      el(
        "label",
        { class: "field" },
        el("span", { class: "unseen" }, "Search settings"),
        el("input", {
          type: "search",
          placeholder: "Search",
          value: route.params.q ?? "",
          autocomplete: "off",
          on: { input: search },
        }),
      ),
    ),
    el("p", { class: "muted" }, "Changes made here are saved to ", el("code", {}, file), "."),
    groups.map(([title, some]) => some.length > 0 && part(title, settingsTable(title, some, context))),
    !rows.length && el("p", {}, "No matching settings."),
  ];
}

function settingsTable(title, rows, context) {
  return table({
    caption: title,
    rows,
    key: (row) => `setting-${row.name}`,
    columns: [
      {
        head: "Setting",
        first: true,
        wide: true,
        cell: (row) => [
          el("code", { id: `name-${row.name}` }, row.name),
          el("div", { class: "muted help" }, prose(row.help)),
        ],
      },
      { head: "Value", class: "value", cell: (row) => [value(row, context), said(row, context)] },
      { head: "Default", class: "before", cell: (row) => el("code", {}, written(row.default)) },
      {
        head: "Source",
        class: "from",
        cell: (row) =>
          row.source === "default"
            ? el("span", { class: "muted" }, "default")
            : chip(SOURCES[row.source] ?? row.source),
      },
    ],
  });
}

const written = (value) => (value === "" ? "empty" : String(value));

function said(row, context) {
  const answer = context.state[row.name];
  return el(
    "span",
    { class: `answer ${answer?.tone ?? ""}`, role: answer?.tone === "bad" ? "alert" : null },
    answer?.text ?? "",
  );
}

function value(row, context) {
  if (!row.runtime) return el("code", {}, written(row.value));
  const named = { "aria-labelledby": `name-${row.name}`, data: { key: `value-${row.name}` } };
  const save = (found) => saved(row, found, context);
  if (row.type === "boolean") {
    return el(
      "label",
      { class: "check" },
      el("input", {
        ...named,
        type: "checkbox",
        role: "switch",
        checked: row.value,
        on: { change: (event) => save(event.currentTarget.checked) },
      }),
      row.value ? "on" : "off",
    );
  }
  if (row.choices.length) {
    return el(
      "select",
      { ...named, on: { change: (event) => save(event.currentTarget.value) } },
      row.choices.map((each) => el("option", { value: each, selected: each === row.value }, each)),
    );
  }
  const number = row.type !== "string";
  const typed = (text) => (number && text.trim() !== "" ? Number(text) : text.trim());
  const change = (event) =>
    row.secret && event.currentTarget.value === String(row.value) ? null : save(typed(event.currentTarget.value));
  return el("input", {
    ...named,
    type: number ? "number" : "text",
    step: row.type === "integer" ? "1" : "any",
    min: row.minimum,
    max: row.maximum,
    value: String(row.value),
    spellcheck: "false",
    autocomplete: "off",
    class: number ? "short" : "long",
    on: { change, keydown },
  });
}

function keydown(event) {
  if (event.key === "Enter") event.currentTarget.blur();
}

async function saved(row, value, context) {
  try {
    const { changed } = await post("/dashboard/api/settings", { [row.name]: value });
    context.state[row.name] = told(changed[row.name]);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    context.state[row.name] = { text: error.message, tone: "bad" };
  }
  announce(`${row.name}: ${context.state[row.name].text}`);
  forgetAnswers();
  context.reload();
}

function told(change) {
  if (!change) return { text: "Unchanged.", tone: "" };
  const text = `Saved: changed from ${written(change.before)} to ${written(change.value)}.`;
  return change.kept === false ? { text: `${text} Lost at a restart: ${change.note}.`, tone: "warn" } : { text, tone: "good" };
}

export const settings = { id: "settings", title: "Settings", letter: "s", load, view };
