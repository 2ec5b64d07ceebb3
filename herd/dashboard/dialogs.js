// Confirmation dialogs and the shortcut list. The browser's dialog element handles focus and Escape.

import { el } from "./dom.js";

/** Resolves to true on confirmation; `fields` are form fields to show. */
export function ask(title, text, action, fields = []) {
  return new Promise((resolve) => {
    const box = dialog(title, () => resolve(box.returnValue === "yes"));
    box.append(
      el("p", {}, text),
      ...fields,
      el(
        "div",
        { class: "actions" },
        el("button", { type: "button", on: { click: () => box.close("no") } }, "Cancel"),
        el("button", { type: "button", class: "strong", on: { click: () => box.close("yes") } }, action),
      ),
    );
    box.showModal();
  });
}

export function tell(title, ...content) {
  const box = dialog(title, () => {});
  box.append(
    ...content,
    el("div", { class: "actions" }, el("button", { type: "button", on: { click: () => box.close() } }, "Close")),
  );
  box.showModal();
}

function dialog(title, done) {
  const box = el("dialog", { "aria-labelledby": "dialog-title" }, el("h2", { id: "dialog-title" }, title));
  box.addEventListener("close", () => {
    done();
    box.remove();
  });
  document.body.append(box);
  return box;
}
