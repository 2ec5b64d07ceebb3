// What an operator says to a finding: that it is known, with a note, or that nothing should be heard of it for a while.

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
      button(found.acknowledged ? "Change the note" : "Acknowledge", () => acknowledge(found, context)),
      found.silenced_until
        ? button("End the silence", () => tell(found, "silence", { hours: 0 }, "is told of again", context))
        : button("Silence", () => silence(found, context)),
    ),
  ];
}

const button = (text, click) => el("button", { type: "button", on: { click } }, text);

async function acknowledge(found, context) {
  const before = found.acknowledged?.note ?? "";
  const note = el("input", { type: "text", maxlength: "1000", autocomplete: "off", value: before });
  const field = el("label", { class: "field" }, el("span", {}, "Note, for whoever looks next"), note);
  const text = `${found.title}. It stays on the list, and costs its points, until it is over.`;
  const [title, action] = found.acknowledged
    ? ["Change the note?", "Keep the note"]
    : ["Acknowledge the finding?", "Acknowledge"];
  if (await ask(title, text, action, [field])) {
    await tell(found, "acknowledge", { note: note.value.trim() }, "is acknowledged", context);
  }
}

async function silence(found, context) {
  const options = Object.entries(HOURS).map(([value, text]) => el("option", { value }, text));
  const hours = el("select", {}, options);
  const field = el("label", { class: "field" }, el("span", {}, "For"), hours);
  const text = `${found.title}. Nothing is told of it meanwhile, and it costs no points.`;
  if (await ask("Silence the finding?", text, "Silence", [field])) {
    await tell(found, "silence", { hours: Number(hours.value) }, "is silenced", context);
  }
}

async function tell(found, what, body, done, context) {
  try {
    await post(`/dashboard/api/health/findings/${encodeURIComponent(found.id)}/${what}`, body);
    delete context.state[found.id];
    announce(`${found.title}: it ${done}.`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    context.state[found.id] = error.message;
  }
  forgetAnswers();
  context.reload();
}
