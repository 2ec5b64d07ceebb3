// Fleet events since the page was opened, newest first, from the live feed.

import { announce, el } from "./dom.js";
import { many } from "./format.js";
import { when } from "./when.js";
import { CHANGES } from "./words.js";

const KEPT = 8;
const SAID_ALOUD = new Set([
  "node_joined",
  "node_left",
  "node_lost",
  "node_back",
  "node_degraded",
  "engine_lost",
  "engine_back",
  "drain_changed",
]);
const known = [];

/** Take an event of the feed. */
export function remember(change) {
  if (!CHANGES[change.kind]) return;
  known.unshift(change);
  known.length = Math.min(known.length, KEPT);
  if (SAID_ALOUD.has(change.kind)) announce(sentence(change));
}

export function list() {
  return (
    known.length > 0 &&
    el(
      "ul",
      { class: "plain changes" },
      known.map((change) => el("li", {}, el("span", { class: "muted" }, when(change.at)), " ", sentence(change))),
    )
  );
}

/** An event in a few words. */
export function sentence({ kind, node_id: node, model, data }) {
  if (kind === "drain_changed") return `${node} ${data.draining ? "is draining" : "accepts requests again"}`;
  if (kind === "router_started") return `Router ${data.version} started`;
  if (kind === "router_stopping")
    return `Router ${data.version} is stopping (${data.signal}), ${many(data.in_flight, "request")} in flight`;
  if (kind === "setting_changed") return `Setting ${data.name} changed from ${data.before} to ${data.value}`;
  if (kind === "breaker_changed")
    return [node, "breaker", data.to?.replaceAll("_", " "), model && `for ${model}`].filter(Boolean).join(" ");
  return [node, CHANGES[kind], model, data.reason && `(${data.reason})`].filter(Boolean).join(" ");
}
