// The filters that trends, latency and usage share: node, model and tag, each in the address.

import { el } from "./dom.js";
import { picker } from "./parts.js";
import { go } from "./route.js";

const NAMES = ["node_id", "model", "tag"];

/** What of the address goes to the router as a filter. */
export const scopeOf = (params) =>
  Object.fromEntries(NAMES.filter((name) => params[name]).map((name) => [name, params[name]]));

/** `known`: {node_id: [...], model: [...], tag: [...]}, each optional; what the address names is always among them. */
export function scopePickers(section, params, known) {
  const options = (name) => {
    const all = new Set([...(known[name] ?? []), params[name]].filter(Boolean));
    return { "": "all", ...Object.fromEntries([...all].sort().map((each) => [each, each])) };
  };
  const pick = (label, name) =>
    known[name] && picker(label, options(name), params[name], (value) => go(section, { ...params, [name]: value }));
  return el("div", { class: "filters" }, pick("Node", "node_id"), pick("Model", "model"), pick("Tag", "tag"));
}

export function namesIn(status) {
  return {
    node_id: status.nodes.map((node) => node.node_id),
    model: [...new Set(status.nodes.flatMap((node) => node.ollama.models_available))],
  };
}
