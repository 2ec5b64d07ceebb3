// Receives events from the router. Falls back to polling every five seconds.

import { at } from "./place.js";

const POLL_MS = 5000;
const AGAIN_MS = 30_000;

/**
 * Calls `told(kind, data)` for `fleet`, `request`, `finding`, `dropped` and `hello` events, `told("poll")` while there is no
 * stream, and `state("live" | "polling")` when that changes.
 */
export function listen(told, state) {
  let source = null;
  let polling = null;
  let again = null;

  function poll(on) {
    if (on && !polling) polling = setInterval(() => told("poll", null), POLL_MS);
    if (!on && polling) polling = clearInterval(polling) ?? null;
  }

  function open() {
    source = new EventSource(at("/dashboard/events"));
    source.onopen = () => {
      poll(false);
      state("live");
    };
    source.onerror = () => {
      poll(true);
      state("polling");
      // The browser reconnects by itself after a broken connection, but not after a response that is no stream.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN_MS);
    };
    for (const kind of ["hello", "fleet", "request", "finding", "dropped"]) {
      source.addEventListener(kind, (event) => told(kind, JSON.parse(event.data)));
    }
  }

  function close() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  // A page in the background, or kept for the Back button, frees its connection for others.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
      poll(false);
    } else if (!source) open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => event.persisted && !source && open());
  open();
}
