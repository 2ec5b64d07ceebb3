// The fleet's health in one sentence, from the findings if available, else from the nodes alone.

import { many } from "./format.js";

/** Whether a finding is acknowledged or silenced. */
export const isQuiet = (found) => Boolean(found.acknowledged || found.silenced_until);

/** The findings counted by the verdict and by the numbers next to it. */
export const wantsALook = (found) => found.severity !== "info" && !isQuiet(found);

export function verdict(status, health) {
  const { nodes_online: up, nodes_total: all } = status.fleet;
  const of = (severity) => health?.recommendations.filter((each) => each.severity === severity && !isQuiet(each)) ?? [];
  const [critical, warning] = [of("critical"), of("warning")];
  if (!up)
    return { tone: "bad", line: "No node can accept requests.", more: named(critical) ?? "All nodes are offline." };
  if (critical.length)
    return {
      tone: "bad",
      line: `Action needed: ${many(critical.length, "critical finding")}.`,
      more: named(critical),
    };
  if (warning.length)
    return {
      tone: "warn",
      line: `The fleet is working; ${many(warning.length, "warning needs", "warnings need")} attention.`,
      more: named(warning),
    };
  const missing = status.nodes.filter((node) => node.status === "offline" && !node.left);
  if (!health && missing.length)
    return {
      tone: "warn",
      line: `The fleet is working; ${many(missing.length, "node is", "nodes are")} offline.`,
      more: missing.map((node) => node.node_id).join(", "),
    };
  return { tone: "good", line: "The fleet is healthy.", more: null };
}

function named(findings) {
  if (!findings.length) return null;
  const titles = findings.slice(0, 2).map((each) => `${each.title}.`);
  return [...titles, findings.length > 2 && `And ${findings.length - 2} more.`].filter(Boolean).join(" ");
}
