// Where the router is: at the root of its host, or under whatever path a proxy puts it. Every address begins here.

const ROOT = new URL("../../", import.meta.url);

/** The address of one of the router's paths, which begins with a slash. */
export const at = (path) => new URL(path.slice(1), ROOT).href;

/** The router's own address without a slash at its end, as one would write it on a command line. */
export const router = ROOT.href.replace(/\/$/, "");
