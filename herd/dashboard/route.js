// The address: `#/section/id?filters`. The only place that writes and parses links to views.

import { at } from "./place.js";

/** The view in the address; `section` is empty if there is none. */
export function current() {
  const [path, text = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [section = "", ...rest] = path.split("/").map(decoded);
  return { section, id: rest.join("/") || null, params: Object.fromEntries(new URLSearchParams(text)) };
}

export function link(section, params = {}, id = null) {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const path = [section, id].filter(Boolean).map(encodeURIComponent).join("/");
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function go(section, params = {}, id = null) {
  location.hash = link(section, params, id);
}

/** The same without a history entry, for filters that update on each key. */
export function stay(section, params = {}, id = null) {
  history.replaceState(null, "", link(section, params, id));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** The served runbook's section for a `docs/runbook.md#…` reference from the router. */
export const runbook = (named) => at(`/dashboard/runbook#${named.split("#")[1] ?? ""}`);

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
