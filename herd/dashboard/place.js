// The router's base URL: the root of its host, or a path given by a proxy. Every URL is built here.

const ROOT = new URL("../../", import.meta.url);

/** The URL of a router path, which begins with a slash. */
export const at = (path) => new URL(path.slice(1), ROOT).href;

/** The router's URL without a trailing slash, for command lines. */
export const router = ROOT.href.replace(/\/$/, "");
