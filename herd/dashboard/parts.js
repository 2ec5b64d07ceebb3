// Building blocks of the sections: headings, chips, bars, notes, empty states, copy buttons.

import { announce, el } from "./dom.js";
import { link } from "./route.js";

/** A label with a mark, whose shape differs as well as its colour. `tone`: good, warn, bad, plain. */
export function chip(text, tone = "plain", title = null) {
  return el("span", { class: `chip ${tone}`, title }, el("span", { class: "mark", "aria-hidden": "true" }), text);
}

export function heading(title, ...controls) {
  return el(
    "div",
    { class: "heading" },
    el("h1", { id: "title", tabindex: "-1" }, title),
    el("div", { class: "controls" }, controls),
  );
}

export function part(title, ...content) {
  return el("section", { class: "part", "aria-label": title }, el("h2", {}, title), content);
}

/** A horizontal bar of `share` 0..1; its text says the same. */
export function meter(label, share, text, tone = "") {
  const known = Number.isFinite(share);
  const width = `${Math.round(100 * Math.min(1, Math.max(0, known ? share : 0)))}%`;
  return el(
    "div",
    { class: "meter" },
    el("span", { class: "meter-label" }, label),
    el("span", { class: `track ${tone}`, "aria-hidden": "true" }, el("span", { class: "fill", style: { width } })),
    el("span", { class: "meter-text" }, text),
  );
}

/** A number with its label, optionally a link. */
export function figure(value, name, href = null, tone = "", title = null) {
  const inside = [el("span", { class: `figure-value ${tone}` }, value), el("span", { class: "figure-name" }, name)];
  return href ? el("a", { class: "figure", href, title }, inside) : el("div", { class: "figure", title }, inside);
}

export function facts(pairs, name = "facts") {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: name },
    given.map(([term, value, whole]) => el("div", { class: whole ? "whole" : null }, el("dt", {}, term), el("dd", {}, value))),
  );
}

export function note(text, tone = "plain", ...more) {
  return el("p", { class: `note ${tone}` }, text, more);
}

/** Nothing to show yet, and what to do about it. */
export function empty(title, text, command = null) {
  return el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), command && copyable(command));
}

/** Text from the router; backticks mark code. */
export function prose(text) {
  return String(text ?? "")
    .split("`")
    .map((piece, index) => (index % 2 ? el("code", {}, piece) : piece));
}

export function unavailable(what) {
  return el(
    "div",
    { class: "empty" },
    el("h2", {}, `${what}: not available from this router`),
    el("p", {}, "This router does not provide this section. A newer version may."),
  );
}

export function failed(error) {
  return el(
    "div",
    { class: "empty", role: "alert" },
    el("h2", {}, "Could not load this section"),
    el("p", {}, error.message),
    el("p", { class: "muted" }, "Retrying…"),
  );
}

/** The router has no such record, so the page does not retry. */
export function absent(error) {
  return el(
    "div",
    { class: "empty", role: "alert" },
    el("h2", {}, "Not found"),
    el("p", {}, error.message),
    el("p", { class: "muted" }, "Reload the page to try again."),
  );
}

/** A command or an id with a button that copies it. */
export function copyable(text, label = "Copy") {
  return el("div", { class: "copyable" }, el("pre", { tabindex: "0" }, el("code", {}, text)), copyButton(text, label));
}

export function copyButton(text, label = "Copy", what = "") {
  const copy = (event) => copied(text, event.currentTarget, label);
  return el(
    "button",
    { type: "button", class: "small", "aria-label": what ? `${label} ${what}` : null, on: { click: copy } },
    label,
  );
}

async function copied(text, button, label) {
  const done = await toClipboard(text);
  button.textContent = done ? "Copied" : "Copy manually";
  announce(button.textContent);
  setTimeout(() => (button.textContent = label), 1500);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return fallbackCopy(text); // plain HTTP to another machine has no clipboard interface
  }
}

function fallbackCopy(text) {
  const field = el("textarea", { class: "unseen", "aria-hidden": "true" }, text);
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** A choice between a few options, as links that set the address. `options`: value to label. */
export function choice(label, options, chosen, href) {
  const items = Object.entries(options).map(([value, words]) =>
    el("a", { href: href(value), "aria-current": value === String(chosen) ? "true" : null }, words),
  );
  return el("div", { class: "choice", role: "group", "aria-label": label }, items);
}

/** A select that changes one parameter of the view. */
export function picker(label, options, chosen, act) {
  const change = (event) => act(event.currentTarget.value);
  return el(
    "label",
    { class: "field" },
    el("span", {}, label),
    el(
      "select",
      { on: { change } },
      Object.entries(options).map(([value, words]) =>
        el("option", { value, selected: value === String(chosen ?? "") }, words),
      ),
    ),
  );
}

export function model(name, params = {}) {
  return name ? el("a", { href: link("traces", { ...params, model: name }), class: "name" }, name) : "none";
}

export function node(name, params = {}) {
  return name ? el("a", { href: link("traces", { ...params, node_id: name }), class: "name" }, name) : "none";
}

export function tags(list, params = {}) {
  return (list ?? []).map((tag) => el("a", { class: "tag", href: link("traces", { ...params, tag }) }, tag));
}
