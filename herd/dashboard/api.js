// HTTP calls to the router: paths, timeouts and status codes. Knows nothing of the views.

import { at } from "./place.js";

const PATIENCE_MS = 15_000;

export class ApiError extends Error {
  constructor(status, message, fields = []) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

/** JSON of a GET; empty parameters are omitted. Throws ApiError, with status 0 if there is no response. */
export const get = (path, parameters = {}, signal = undefined, patience_ms = PATIENCE_MS) =>
  ask("GET", path + query(parameters), undefined, signal, patience_ms);

export const post = (path, body = undefined) => ask("POST", path, body);
export const remove = (path) => ask("DELETE", path);

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** Where a section has several sources: what one of them answers, or null where this router does not have it. */
export async function ifThere(asked) {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

async function ask(method, path, body, signal, patience_ms = PATIENCE_MS) {
  const limit = AbortSignal.timeout(patience_ms);
  const answer = await fetch(at(path), {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: body === undefined ? {} : { "content-type": "application/json" },
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
    cache: "no-store",
  }).catch((error) => {
    if (signal?.aborted) throw error;
    throw new ApiError(
      0,
      error.name === "TimeoutError" ? "The router took too long to respond." : "The router is not responding.",
    );
  });
  const found = await answer.json().catch(() => null);
  if (answer.ok && found !== null) return found;
  throw new ApiError(
    answer.status,
    messageOf(found) ?? `The router returned status ${answer.status}.`,
    found?.fields ?? [],
  );
}

function messageOf(found) {
  const error = found?.error ?? found?.detail;
  return typeof error === "string" ? error : error?.message;
}

const answers = new Map();

/** A cached GET, for at most `age_ms`: for figures that are costly to compute and change slowly. */
export async function lately(path, parameters, age_ms, signal, patience_ms = PATIENCE_MS) {
  const key = path + query(parameters);
  const known = answers.get(key);
  if (known && Date.now() - known.at < age_ms) return known.found;
  const found = await ifThere(get(path, parameters, signal, patience_ms));
  answers.set(key, { at: Date.now(), found });
  return found;
}

/** Drop cached responses after a change made by this page. */
export function forgetAnswers() {
  answers.clear();
}
