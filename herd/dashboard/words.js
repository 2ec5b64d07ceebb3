// What the router's own words mean, in sentences. A test holds the lists equal to the router's.

export const STATUS = {
  completed: {
    text: "completed",
    tone: "good",
    means: "The answer reached the client with the proper end of its dialect.",
  },
  failed: { text: "failed", tone: "bad", means: "No node could answer; the client got an error before any content." },
  incomplete: {
    text: "incomplete",
    tone: "bad",
    means: "The answer had begun and did not reach its proper end; the client was told within it.",
  },
  client_disconnected: { text: "client left", tone: "plain", means: "The client left before its answer was whole." },
  rejected: { text: "rejected", tone: "warn", means: "Herd itself did not take the request; no node saw it." },
};

export const ERRORS =
  "Requests that failed or broke off, of all but those that were rejected and those whose client left";

export const SIGNALS = {
  thermal: { text: "Load", asks: "Seconds to load the model here." },
  memory_fit: { text: "Eviction", asks: "What putting other models out of memory costs those who ask for them." },
  queue_depth: { text: "Queue", asks: "Seconds until a slot and the memory are free." },
  wait_time: { text: "Own work", asks: "Seconds on its own prompt; for an answer that does not stream, to its end." },
  role_affinity: { text: "Affinity", asks: "Less what a cached prefix saves; plus the delay of the requests there." },
  availability_trend: { text: "Availability", asks: "The chance of losing the node, times starting again." },
  context_fit: { text: "Context", asks: "Seconds of a reload that this context forces." },
};

export const SEVERITY = {
  critical: { text: "critical", tone: "bad" },
  warning: { text: "warning", tone: "warn" },
  info: { text: "info", tone: "plain" },
};

export const CHANGES = {
  node_joined: "joined",
  node_left: "left in order",
  node_lost: "fell silent",
  node_back: "is back",
  node_degraded: "is degraded",
  engine_lost: "lost its engine",
  engine_back: "has its engine back",
  model_loaded: "loaded",
  model_unloaded: "unloaded",
  model_added: "has a new model",
  model_removed: "no longer has",
  drain_changed: "drain changed",
  node_forgotten: "was struck off",
  breaker_changed: "breaker changed",
  slots_limited: "takes fewer requests at once",
  zombie_reaped: "stuck request ended",
  setting_changed: "setting changed",
  pull_started: "pulls",
  pull_finished: "has pulled",
  pull_failed: "could not pull",
  preload: "loaded ahead",
  preload_failed: "could not load ahead",
  door_closed: "refused at the door",
};
