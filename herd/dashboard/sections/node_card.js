// One node as a card: resources, models, state, and operator actions.

import { ApiError, forgetAnswers, post, remove } from "../api.js";
import { ask } from "../dialogs.js";
import { announce, el } from "../dom.js";
import { context as contextOf, count, gibibytes, many, percent, span, used } from "../format.js";
import { chip, facts, meter } from "../parts.js";
import { link } from "../route.js";

const STATUS_TONE = { online: "good", degraded: "warn", offline: "bad" };
const PRESSURE_TONE = { normal: "", warn: "warn", critical: "bad" };

/** `findings` are this node's open findings. */
export function nodeCard(node, findings, context) {
  const engine = node.ollama;
  return el(
    "article",
    {
      class: `card node${node.status === "offline" ? " gone" : ""}`,
      data: { key: `node-${node.node_id}` },
      "aria-label": `Node ${node.node_id}`,
    },
    el(
      "header",
      {},
      el("h3", {}, el("a", { href: link("traces", { node_id: node.node_id }), class: "name" }, node.node_id)),
      el(
        "span",
        { class: "chips" },
        foundOn(findings),
        statusOf(node),
        node.draining && chip("draining", "warn"),
        breakerOf(node),
      ),
    ),
    !engine.reachable &&
      node.status !== "offline" &&
      el("p", { class: "note bad" }, `Engine unreachable${engine.error ? `: ${engine.error}` : "."}`),
    el("div", { class: "meters" }, meters(node)),
    models(engine),
    facts(
      [
        ["In flight", count(engine.requests_active)],
        ["Slots", `${count(engine.slots)} per model`],
        ["Last seen", node.last_seen_s < 2 ? "now" : `${span(node.last_seen_s)} ago`],
        ["Breaker", node.breaker.replaceAll("_", " ")],
        ["Engine", `${engine.engine === "llamacpp" ? "llama.cpp" : "Ollama"} ${engine.version ?? ""}`],
        ["Agent", node.version],
      ],
      "facts small",
    ),
    el(
      "footer",
      {},
      context.state[`said-${node.node_id}`] &&
        el("p", { class: "note bad", role: "alert" }, context.state[`said-${node.node_id}`]),
      actions(node, context),
    ),
  );
}

function foundOn(findings) {
  const critical = findings.some((each) => each.severity === "critical");
  const titles = findings.map((each) => each.title).join("; ");
  const words = chip(many(findings.length, "finding"), critical ? "bad" : "warn", titles);
  return findings.length > 0 && el("a", { class: "name", href: link("health") }, words);
}

function statusOf(node) {
  if (node.status === "offline" && node.left) return chip("shut down", "plain", "The agent shut down cleanly.");
  return chip(node.status, STATUS_TONE[node.status]);
}

function breakerOf(node) {
  return (
    node.breaker !== "closed" &&
    chip(`breaker ${node.breaker.replaceAll("_", " ")}`, node.breaker === "open" ? "bad" : "warn")
  );
}

function meters(node) {
  const { memory, cpu, gpus } = node;
  return [
    meter(
      "Memory",
      memory.used_gb / memory.total_gb,
      used(memory.used_gb, memory.total_gb),
      PRESSURE_TONE[memory.pressure],
    ),
    ...gpus
      .filter((gpu) => gpu.kind !== "apple")
      .map((gpu) =>
        meter(
          gpus.length > 1 ? `VRAM ${gpu.index}` : "VRAM",
          gpu.memory_used_gb / gpu.memory_total_gb,
          used(gpu.memory_used_gb, gpu.memory_total_gb),
          toneOf(gpu.memory_used_gb / gpu.memory_total_gb),
        ),
      ),
    ...gpus
      .filter((gpu) => gpu.utilization_pct !== null)
      .map((gpu) =>
        meter(
          gpus.length > 1 ? `GPU ${gpu.index} use` : "GPU use",
          gpu.utilization_pct / 100,
          percent(gpu.utilization_pct),
        ),
      ),
    meter(
      "CPU",
      cpu.utilization_pct / 100,
      el("span", { title: many(cpu.cores, "core") }, percent(cpu.utilization_pct)),
      cpu.throttled ? "warn" : "",
    ),
  ];
}

const toneOf = (share) => (share >= 0.95 ? "bad" : share >= 0.85 ? "warn" : "");

function models(engine) {
  const rest = engine.models_available.length;
  return el(
    "div",
    { class: "models" },
    engine.models_loaded.length
      ? el(
          "ul",
          { class: "plain pairs" },
          engine.models_loaded.map((model) =>
            el(
              "li",
              {},
              el("a", { class: "name", href: link("traces", { model: model.name }) }, model.name),
              el("span", { class: "muted", title: sizeInWords(model) }, sizeOf(model)),
            ),
          ),
        )
      : el("p", { class: "muted" }, "No models loaded."),
    rest > 0 &&
      el(
        "details",
        {},
        el("summary", {}, `${many(rest, "model")} on disk`),
        el(
          "ul",
          { class: "plain" },
          engine.models_available.map((name) => el("li", {}, name)),
        ),
      ),
  );
}

const sizeOf = (model) =>
  [gibibytes(model.vram_gb || model.size_gb), model.context_length && `${contextOf(model.context_length)} ctx`]
    .filter(Boolean)
    .join(" · ");

const sizeInWords = (model) =>
  ["Memory used", model.context_length && `context of ${count(model.context_length)} tokens`]
    .filter(Boolean)
    .join(", ");

function actions(node, context) {
  const { node_id: name } = node;
  const act = (call, done) => () => carriedOut(name, call, done, context);
  return el(
    "div",
    { class: "actions" },
    node.draining
      ? el(
          "button",
          {
            type: "button",
            on: { click: act(() => post(`${path(name)}/drain?draining=false`), "accepts requests again") },
          },
          "Resume",
        )
      : node.status !== "offline" &&
          el("button", { type: "button", on: { click: () => drain(node, context) } }, "Drain"),
    node.status === "offline" && el("button", { type: "button", on: { click: () => forget(node, context) } }, "Forget"),
  );
}

const path = (name) => `/fleet/nodes/${encodeURIComponent(name)}`;

async function drain(node, context) {
  const now = node.ollama.requests_active;
  const text = `No new requests are sent to this node until you resume it. ${now ? `${many(now, "request")} in progress will finish.` : "No requests in progress."}`;
  if (await ask(`Drain ${node.node_id}?`, text, "Drain"))
    carriedOut(node.node_id, () => post(`${path(node.node_id)}/drain`), "is draining", context);
}

async function forget(node, context) {
  const text = "The node is removed from this list; its requests stay on record. It joins again if its agent restarts.";
  if (await ask(`Forget ${node.node_id}?`, text, "Forget"))
    carriedOut(node.node_id, () => remove(path(node.node_id)), "is removed", context);
}

async function carriedOut(name, call, done, context) {
  try {
    await call();
    delete context.state[`said-${name}`];
    announce(`${name} ${done}.`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    context.state[`said-${name}`] = error.message;
  }
  forgetAnswers();
  context.reload();
}
