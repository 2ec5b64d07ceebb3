// The start page: the fleet's health in one line, the nodes, recent events and the latest requests.

import { get, lately } from "../api.js";
import * as changes from "../changes.js";
import { el } from "../dom.js";
import { brief, count, gigabytes, many, percent } from "../format.js";
import { empty, figure, heading, part } from "../parts.js";
import { router } from "../place.js";
import { link } from "../route.js";
import { verdict, wantsALook } from "../verdict.js";
import { nodeCard } from "./node_card.js";
import { requestTable } from "./request_table.js";
import { running } from "./running.js";

const RECENT = 8;
const HEALTH_AGE_MS = 5000;

async function load(_route, signal) {
  const [status, health, recent, hour, now] = await Promise.all([
    get("/fleet/status", {}, signal),
    lately("/dashboard/api/health", {}, HEALTH_AGE_MS, signal),
    get("/dashboard/api/traces", { limit: RECENT }, signal),
    lately("/dashboard/api/trends", { hours: 1 }, HEALTH_AGE_MS, signal),
    get("/fleet/requests", {}, signal),
  ]);
  return { status, health, recent, hour, now };
}

function view({ status, health, recent, hour, now }, _route, context) {
  if (!status.nodes.length) return [heading("Fleet"), noNode(status)];
  const said = verdict(status, health);
  return [
    heading("Fleet"),
    el(
      "section",
      { class: `verdict ${said.tone}`, "aria-label": "Fleet health" },
      el(
        "p",
        { class: "verdict-line", role: "status" },
        el("span", { class: "mark", "aria-hidden": "true" }),
        said.line,
      ),
      said.more &&
        el("p", { class: "verdict-more" }, said.more, " ", el("a", { href: link("health") }, "See findings")),
      el("div", { class: "figures" }, figures(status, health, lastHour(hour), said.tone)),
    ),
    running(now, context),
    part(
      "Nodes",
      el(
        "div",
        { class: "cards" },
        status.nodes.map((node) => nodeCard(node, findingsOf(node, health), context)),
      ),
    ),
    pulled(status.pulls),
    queued(status.queues),
    sinceOpened(),
    part(
      "Latest requests",
      recent.traces.length ? requestTable(recent.traces, { caption: "Latest requests", short: true }) : noTraffic(),
    ),
  ];
}

const findingsOf = ({ node_id: name }, health) =>
  (health?.recommendations ?? [])
    .flatMap((each) => (each.parts?.length ? each.parts : [each]))
    .filter((each) => each.node_id === name && wantsALook(each));

function figures(status, health, hour, tone) {
  const { nodes_online: up, nodes_total: all, requests_active: active, models_loaded: models } = status.fleet;
  const missing = status.nodes.filter((node) => node.status === "offline" && !node.left).length;
  const findings = health?.recommendations.filter(wantsALook) ?? null;
  return [
    health && figure(String(health.health_score), "health score of 100", link("health"), tone),
    findings &&
      figure(
        count(findings.length),
        findings.length === 1 ? "finding" : "findings",
        link("health"),
        findings.length ? "warn" : "",
      ),
    figure(`${up} of ${all}`, "nodes up", null, missing ? "warn" : "", missing ? `${missing} offline` : null),
    figure(count(active), active === 1 ? "request in flight" : "requests in flight"),
    figure(count(models), models === 1 ? "model loaded" : "models loaded"),
    hour &&
      figure(
        hour.judged ? percent(hour.share) : "–",
        "errors, last hour",
        link("traces", { status: "errors", period: "1h" }),
        hour.share >= 5 ? "bad" : "",
        hour.requests
          ? `${count(hour.failed)} of ${many(hour.judged, "request")} failed or incomplete`
          : "no requests in the last hour",
      ),
    hour && figure(brief(hour.requests), "requests, last hour", link("traces", { period: "1h" })),
  ];
}

function lastHour(trends) {
  const rows = trends?.data ?? null;
  if (!rows) return null;
  const sum = (name) => rows.reduce((all, row) => all + (row[name] ?? 0), 0);
  const [requests, failed] = [sum("request_count"), sum("failed_count") + sum("incomplete_count")];
  const judged = failed + sum("completed_count");
  return { requests, failed, judged, share: judged ? (100 * failed) / judged : 0 };
}

function sinceOpened() {
  const list = changes.list();
  return list && part("Recent events", list);
}

function pulled(pulls) {
  return (
    pulls.length > 0 &&
    part(
      "Pulls in progress",
      el(
        "ul",
        { class: "plain" },
        pulls.map((pull) => el("li", {}, pulling(pull))),
      ),
    )
  );
}

function pulling({ model, node_id: node, completed, total, status, waiting }) {
  const far = total ? `${Math.floor((100 * completed) / total)}% of ${gigabytes(total)}` : status;
  return [`${model} to ${node}: ${far}`, waiting && `${many(waiting, "request")} waiting`].filter(Boolean).join(", ");
}

function queued(queues) {
  const waiting = Object.entries(queues).filter(([, queue]) => queue.depth);
  return (
    waiting.length > 0 &&
    part(
      "Waiting for a slot",
      el(
        "ul",
        { class: "plain" },
        waiting.map(([model, queue]) => el("li", {}, `${model}: ${many(queue.depth, "request")}`)),
      ),
    )
  );
}

function noNode(status) {
  return [
    el(
      "section",
      { class: "verdict plain", "aria-label": "Fleet health" },
      el(
        "p",
        { class: "verdict-line", role: "status" },
        el("span", { class: "mark", "aria-hidden": "true" }),
        "The router is running. No node has joined yet.",
      ),
      el("div", { class: "figures" }, figures(status, null, null, "")),
    ),
    empty(
      "Add the first node",
      "Start the agent on each machine that runs Ollama. It finds the router by itself on this machine, and across the local network if the router listens on more than loopback.",
      "herd-node",
    ),
    empty(
      "On another machine",
      "If the agent does not find the router, pass its URL. Then accept the node on the router's machine: herd node accept.",
      `herd-node --router-url ${router}`,
    ),
  ];
}

export function noTraffic(title = "No requests yet") {
  return empty(
    title,
    "Point a client at this address, or send a request with curl. Replace the model with one of yours.",
    `curl -s ${router}/api/chat -d '{"model":"llama3.2:3b","messages":[{"role":"user","content":"Hello"}]}'`,
  );
}

export const fleet = {
  id: "fleet",
  title: "Fleet",
  letter: "f",
  load,
  view,
  live: () => ({ on: ["fleet", "request", "finding"], least_ms: 1000, every_ms: 2000 }),
};
