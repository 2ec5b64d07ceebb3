// The address: `#/section/id?filters`. The one place that knows how a view is written as a link, and read from one.

import { at } from "./place.js";

/** The view that the address names; `section` is empty where it names none. */
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

/** The same without a step in the browser's history: for filters that follow each key. */
export function stay(section, params = {}, id = null) {
  history.replaceState(null, "", link(section, params, id));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** The section of the served runbook that `docs/runbook.md#…`, as the router names it, stands for. */
export const runbook = (named) => at(`/dashboard/runbook#${named.split("#")[1] ?? ""}`);

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
