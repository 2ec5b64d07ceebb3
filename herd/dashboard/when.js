// Times as elements: local time as text, UTC as title, ISO 8601 as machine-readable value.

import { el } from "./dom.js";
import { NONE, ZONE, iso, isToday, moment, span, timeOfDay, utc } from "./format.js";

const known = (unix) => typeof unix === "number" && Number.isFinite(unix);

export function when(unix) {
  if (!known(unix)) return NONE;
  const text = isToday(unix) ? timeOfDay(unix) : moment(unix);
  return el("time", { datetime: iso(unix), title: `${utc(unix)} (shown in ${ZONE})` }, text);
}

export function exactly(unix) {
  if (!known(unix)) return NONE;
  return el("time", { datetime: iso(unix), title: utc(unix) }, `${moment(unix)} (${ZONE})`);
}

// Beyond ten minutes, seconds are noise.
const roughly = (seconds) => span(seconds < 600 ? seconds : seconds - (seconds % 60));

export function ago(unix, now = Date.now() / 1000) {
  if (!known(unix)) return NONE;
  return el(
    "time",
    { datetime: iso(unix), title: `${utc(unix)}` },
    now - unix < 2 ? "just now" : `${roughly(now - unix)} ago`,
  );
}
