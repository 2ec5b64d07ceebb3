// Keyboard shortcuts: digits and g+letter open sections, `/` the search, `?` shows the list.

import { tell } from "./dialogs.js";
import { el } from "./dom.js";
import { go, link } from "./route.js";

const PAUSE_MS = 1200;
const TYPED_INTO = "input, select, textarea, [contenteditable]";

export function listenToKeys(sections) {
  let waitsForLetter = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") return escape(event);
    if (event.target.closest(TYPED_INTO)) return;
    if (waitsForLetter) {
      waitsForLetter = false;
      return visit(
        sections.find((section) => section.letter === event.key),
        event,
      );
    }
    if (event.key === "g") {
      waitsForLetter = true;
      setTimeout(() => (waitsForLetter = false), PAUSE_MS);
    } else if (event.key === "/") search(event);
    else if (event.key === "?") showKeys(sections);
    else if (/^[0-9]$/.test(event.key)) visit(sections[(Number(event.key) + 9) % 10], event);
  });
}

function visit(section, event) {
  if (!section) return;
  event.preventDefault();
  go(section.id);
}

function search(event) {
  event.preventDefault();
  const field = document.querySelector("main input[type=search]");
  if (field) field.focus();
  else go("traces", { focus: "search" });
}

function escape(event) {
  const menu = document.getElementById("menu");
  if (menu.getAttribute("aria-expanded") === "true") {
    menu.click();
    menu.focus();
  } else if (event.target.closest(TYPED_INTO)) event.target.blur();
  else {
    const back = document.querySelector("main a[rel=up]");
    if (back) location.hash = back.hash;
  }
}

export function showKeys(sections) {
  const rows = sections.map((section, index) =>
    el(
      "div",
      {},
      el(
        "dt",
        {},
        index < 10 && [el("kbd", {}, String((index + 1) % 10)), " or "],
        el("kbd", {}, "g"),
        " ",
        el("kbd", {}, section.letter),
      ),
      el("dd", {}, el("a", { href: link(section.id) }, section.title)),
    ),
  );
  const more = [
    ["/", "Search traces"],
    ["Esc", "Close a dialog, leave a field or a request"],
    ["?", "This list"],
  ].map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)));
  tell("Keyboard", el("dl", { class: "keys" }, rows, more));
}
