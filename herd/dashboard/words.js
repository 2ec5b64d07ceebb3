// Labels and help for the router's own terms. A test keeps these lists equal to the router's.

export const STATUS = {
  completed: {
    text: "completed",
    tone: "good",
    means: "The client received the complete answer.",
  },
  failed: { text: "failed", tone: "bad", means: "No node could answer. The client received an error before any content." },
  incomplete: {
    text: "incomplete",
    tone: "bad",
    means: "The answer broke off. The client received an error in the stream.",
  },
  client_disconnected: { text: "disconnected", tone: "plain", means: "The client left before the answer was complete." },
  rejected: { text: "rejected", tone: "warn", means: "Herd rejected the request. No node saw it." },
};

export const ERRORS =
  "Failed or incomplete requests, without rejections and client disconnects";

export const SIGNALS = {
  thermal: { text: "Load", asks: "Time to load the model on this node." },
  memory_fit: { text: "Eviction", asks: "Cost of evicting other models, for the requests that need them." },
  queue_depth: { text: "Queue", asks: "Time until a slot and the memory are free." },
  wait_time: { text: "Own work", asks: "Time to process the prompt; without streaming, to generate the whole answer." },
  role_affinity: { text: "Affinity", asks: "Time saved by a cached prefix (negative), plus the delay to other requests." },
  availability_trend: { text: "Availability", asks: "Chance of losing the node times the cost of starting again." },
  context_fit: { text: "Context", asks: "Time of the reload that this request's context forces." },
};

export const SEVERITY = {
  critical: { text: "critical", tone: "bad" },
  warning: { text: "warning", tone: "warn" },
  info: { text: "info", tone: "plain" },
};

export const PHASES = {
  receiving: { text: "receiving", tone: "plain", means: "The client is still sending the request." },
  queued: { text: "queued", tone: "warn", means: "No free slot yet, or waiting for a retry." },
  loading: { text: "loading", tone: "warn", means: "The node is loading the model." },
  prefill: { text: "prefill", tone: "plain", means: "The node is processing the prompt; no token yet." },
  decode: { text: "decode", tone: "good", means: "Tokens are streaming." },
  working: { text: "working", tone: "plain", means: "Not streamed, so prefill and decode cannot be told apart." },
};

export const CHANGES = {
  router_started: "router started",
  router_stopping: "router is stopping",
  node_joined: "joined",
  node_left: "shut down",
  node_lost: "went offline",
  node_back: "is back",
  node_degraded: "is degraded",
  engine_lost: "lost its engine",
  engine_back: "has its engine back",
  model_loaded: "loaded",
  model_unloaded: "unloaded",
  model_added: "has a new model",
  model_removed: "no longer has",
  drain_changed: "drain changed",
  node_forgotten: "was removed",
  breaker_changed: "breaker changed",
  slots_limited: "accepts fewer concurrent requests",
  zombie_reaped: "stuck request reaped",
  setting_changed: "setting changed",
  pull_started: "pulls",
  pull_finished: "pulled",
  pull_failed: "failed to pull",
  preload: "preloaded",
  preload_failed: "failed to preload",
  door_closed: "refused access",
  request_quarantined: "died, like the node before it, on one request, now in quarantine",
};
