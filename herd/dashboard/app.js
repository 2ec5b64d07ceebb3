// Entry point: the list of sections and their shortcuts; connects navigation, keyboard and live feed.

import { forgetAnswers } from "./api.js";
import { remember } from "./changes.js";
import { el, patch } from "./dom.js";
import { menuButton, openMenu, themeButton } from "./frame.js";
import { listenToKeys, showKeys } from "./keys.js";
import { listen } from "./live.js";
import { at } from "./place.js";
import { link } from "./route.js";
import { apps } from "./sections/apps.js";
import { fleet } from "./sections/fleet.js";
import { health } from "./sections/health.js";
import { latency } from "./sections/latency.js";
import { models } from "./sections/models.js";
import { plan } from "./sections/plan.js";
import { recommendations } from "./sections/recommendations.js";
import { settings } from "./sections/settings.js";
import { traces } from "./sections/traces.js";
import { trends } from "./sections/trends.js";
import { usage } from "./sections/usage.js";
import { Shell } from "./shell.js";

const SECTIONS = [fleet, trends, latency, usage, models, apps, traces, health, recommendations, plan, settings];
const WORDS = {
  live: ["Live", "Updates arrive as they happen."],
  polling: ["Every 5 s", "No live stream available; the page polls the router every five seconds."],
};

const shell = new Shell(document.getElementById("main"), SECTIONS);
let edition = null;

function navigation(active) {
  patch(document.getElementById("sections"), [
    el(
      "ul",
      {},
      SECTIONS.map((section, index) =>
        el(
          "li",
          {},
          el(
            "a",
            {
              href: link(section.id),
              "aria-current": section.id === active ? "page" : null,
              "aria-keyshortcuts": index < 10 ? String((index + 1) % 10) : null,
            },
            section.title,
          ),
        ),
      ),
    ),
  ]);
}

function connection(state) {
  const [text, title] = WORDS[state];
  patch(document.getElementById("connection"), [
    el(
      "span",
      { class: `chip ${state === "live" ? "good" : "warn"}`, title },
      el("span", { class: "mark", "aria-hidden": "true" }),
      text,
    ),
  ]);
}

function told(kind, data) {
  if (kind === "hello") greeted(data);
  if (kind === "fleet") remember(data);
  if (kind === "finding") forgetAnswers();
  shell.happened(kind, data);
}

function greeted({ version, edition: now }) {
  document.getElementById("version").textContent = version;
  if (edition && edition !== now) {
    patch(document.getElementById("version"), [
      `${version} · `,
      el("a", { href: at("/dashboard") }, "reload for the new version"),
    ]);
  }
  edition ??= now;
}

window.addEventListener("herd-section", (event) => {
  navigation(event.detail);
  openMenu(false);
});
menuButton();
document.getElementById("keys").onclick = () => showKeys(SECTIONS);
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the address is the view's
  document.getElementById("main").focus();
};
themeButton();
listenToKeys(SECTIONS);
shell.start();
listen(told, connection);
