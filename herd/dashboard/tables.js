// Tables that a screen reader can walk and a phone can show: below a certain width each row becomes a small list.
// Roles are explicit, because some browsers drop them from a table laid out as blocks.

import { el } from "./dom.js";
import { picker } from "./parts.js";
import { go } from "./route.js";

/** A column of numbers: the field `name` of each row, shown by `show` and sorted by itself. */
export const numbers = (head, name, show, title = null) => ({
  head,
  name,
  title,
  number: true,
  sort: (row) => row[name],
  cell: (row) => show(row[name]),
});

/**
 * `columns`: {head, cell(row), name?, number?, sort?(row), title?}; `key(row)` keeps a row's place between updates;
 * `href(row)` makes the whole row lead there. `view` {section, params} holds the order in the address as `sort`.
 */
export function table({
  caption,
  columns,
  rows,
  key = null,
  href = null,
  view = null,
  showCaption = false,
  rowClass = () => "",
}) {
  const order = sortingOf(view, columns);
  const sorted = order ? [...rows].sort(order.compare) : rows;
  return el(
    "div",
    // A table wider than the screen must be focusable, so that the keyboard can scroll it.
    columns.length > 8
      ? { class: "table dense", tabindex: "0", role: "region", "aria-label": caption }
      : { class: "table" },
    view && el("div", { class: "narrow" }, sorter(columns, view)),
    el(
      "table",
      { role: "table" },
      el("caption", { class: showCaption ? null : "unseen" }, caption),
      el(
        "thead",
        { role: "rowgroup" },
        el(
          "tr",
          { role: "row" },
          columns.map((column) => head(column, order, view)),
        ),
      ),
      el(
        "tbody",
        { role: "rowgroup" },
        sorted.map((row) => line(row, columns, key, href, rowClass)),
      ),
    ),
  );
}

/** A phone shows no column heads, so sorting needs a select. */
function sorter(columns, view) {
  const ways = columns.filter((column) => column.sort).map((column) => [nameOf(column), column]);
  const options = ways.map(([name, { head, first }]) => [`${name}.${first ? "up" : "down"}`, head]);
  return picker("Sort by", { "": "default", ...Object.fromEntries(options) }, view.params.sort, (sort) =>
    go(view.section, { ...view.params, sort }),
  );
}

function line(row, columns, key, href, rowClass) {
  const address = href?.(row);
  const open = (event) => {
    if (!event.target.closest("a, button, input, select, summary") && !String(getSelection())) location.hash = address;
  };
  return el(
    "tr",
    {
      role: "row",
      class: [address && "leads", rowClass(row)].filter(Boolean).join(" ") || null,
      data: key ? { key: key(row) } : {},
      on: address ? { click: open } : {},
    },
    columns.map((column) => cell(row, column)),
  );
}

function cell(row, column) {
  return el(
    column.first ? "th" : "td",
    {
      role: column.first ? "rowheader" : "cell",
      scope: column.first ? "row" : null,
      class: classes(column),
      data: { head: column.first ? "" : (column.label ?? column.head) },
    },
    column.cell(row),
  );
}

function classes(column) {
  return [column.number && "number", column.wide && "wide", column.class].filter(Boolean).join(" ") || null;
}

function head(column, order, view) {
  const attributes = { role: "columnheader", scope: "col", class: classes(column), title: column.title };
  const sub = column.sub && el("div", { class: "sub" }, column.sub);
  if (!column.sort || !view) return el("th", attributes, column.head, sub);
  const mine = order?.column === column;
  const next = mine && order.down ? `${nameOf(column)}.up` : `${nameOf(column)}.down`;
  const sorted = mine ? (order.down ? "descending" : "ascending") : null;
  return el(
    "th",
    { ...attributes, "aria-sort": sorted },
    el(
      "button",
      { type: "button", class: "sort", on: { click: () => go(view.section, { ...view.params, sort: next }) } },
      column.head,
      el("span", { class: "arrow", "aria-hidden": "true" }, mine ? (order.down ? " ↓" : " ↑") : ""),
    ),
    sub,
  );
}

const nameOf = (column) => column.name ?? column.head.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_");

function sortingOf(view, columns) {
  const [name, way] = (view?.params.sort ?? "").split(".");
  const column = columns.find((each) => each.sort && nameOf(each) === name);
  return column ? { column, down: way !== "up", compare: comparing(column, way !== "up") } : null;
}

function comparing(column, down) {
  return (left, right) => {
    const [a, b] = [column.sort(left), column.sort(right)];
    if (a === b) return 0;
    if (a === null || a === undefined) return 1; // what is not known goes last, either way
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * (down ? -1 : 1);
  };
}
