// Operator actions on a finding: acknowledge it with a note, or silence it for a time.

import { ApiError, forgetAnswers, post } from "../api.js";
import { ask } from "../dialogs.js";
import { announce, el } from "../dom.js";

const HOURS = { 1: "1 hour", 8: "8 hours", 24: "a day", 168: "a week" };

export function actions(found, context) {
  if (!found.id) return null;
  const said = context.state[found.id];
  return [
    said && el("p", { class: "note bad", role: "alert" }, said),
    el(
      "div",
      { class: "actions" },
      button(found.acknowledged ? "Edit note" : "Acknowledge", () => acknowledge(found, context)),
      found.silenced_until
        ? button("Unsilence", () => tell(found, "silence", { hours: 0 }, "unsilenced", context))
        : button("Silence", () => silence(found, context)),
    ),
  ];
}

const button = (text, click) => el("button", { type: "button", on: { click } }, text);

async function acknowledge(found, context) {
  const before = found.acknowledged?.note ?? "";
  const note = el("input", { type: "text", maxlength: "1000", autocomplete: "off", value: before });
  const field = el("label", { class: "field" }, el("span", {}, "Note for other operators"), note);
  const text = `${found.title}. It stays on the list and keeps lowering the health score until it is resolved.`;
  const [title, action] = found.acknowledged
    ? ["Edit the note?", "Save note"]
    : ["Acknowledge this finding?", "Acknowledge"];
  if (await ask(title, text, action, [field])) {
    await tell(found, "acknowledge", { note: note.value.trim() }, "acknowledged", context);
  }
}

async function silence(found, context) {
  const options = Object.entries(HOURS).map(([value, text]) => el("option", { value }, text));
  const hours = el("select", {}, options);
  const field = el("label", { class: "field" }, el("span", {}, "Duration"), hours);
  const text = `${found.title}. You won't be notified until then, and it does not lower the health score.`;
  if (await ask("Silence this finding?", text, "Silence", [field])) {
    await tell(found, "silence", { hours: Number(hours.value) }, "silenced", context);
  }
}

async function tell(found, what, body, done, context) {
  try {
    await post(`/dashboard/api/health/findings/${encodeURIComponent(found.id)}/${what}`, body);
    delete context.state[found.id];
    announce(`${found.title}: ${done}.`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    context.state[found.id] = error.message;
  }
  forgetAnswers();
  context.reload();
}
