// Formats numbers, times and sizes. Pure, apart from the browser's time zone.

const LOCALE = "en-GB";
const plain = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(LOCALE, { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const long = new Intl.DateTimeFormat(LOCALE, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const day = new Intl.DateTimeFormat(LOCALE, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });

export const NONE = "–";
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

const known = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (known(value) ? plain.format(value) : NONE);

/** 12,345,678 as 12.3M (a small m is a thousandth); put the exact number in a title. */
export const brief = (value) =>
  known(value) ? (Math.abs(value) < 10_000 ? plain.format(value) : compact.format(value).replace("m", "M")) : NONE;

export const points = (value, digits = 1) => (known(value) ? value.toFixed(digits) : NONE);

export function percent(value) {
  if (!known(value)) return NONE;
  return `${value === 0 || value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toFixed(2)}%`;
}

/** Milliseconds in the unit that leaves two or three digits. */
export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return span(ms / 1000);
}

/** Seconds as the two largest units. */
export function span(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return joined(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86_400) return joined(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return joined(Math.floor(s / 86_400), "d", Math.floor((s % 86_400) / 3600), "h");
}

const joined = (first, unit, second, smaller) =>
  second ? `${first} ${unit} ${second} ${smaller}` : `${first} ${unit}`;

const size = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));

/** Memory: the router's `_gb` fields are 2^30 bytes, as in findings. */
export const gibibytes = (gib) => (known(gib) ? `${size(gib)} GiB` : NONE);

/** Download sizes: 10^9 bytes, as in Ollama's library and progress messages. */
export const gigabytes = (bytes) => (known(bytes) ? `${size(bytes / 1e9)} GB` : NONE);

export const used = (some, all) => (known(some) && known(all) ? `${size(some)} of ${gibibytes(all)}` : NONE);

/** Context length in k tokens of 1,024 (131,072 is 128k); other lengths exactly. */
export const context = (tokens) => (tokens % 1024 ? plain.format(tokens) : `${plain.format(tokens / 1024)}k`);

export const rate = (perSecond) =>
  known(perSecond) ? `${perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toFixed(1)} /s` : NONE;

/** `n thing` or `n things`. */
export const many = (n, thing, things = `${thing}s`) => `${count(n)} ${n === 1 ? thing : things}`;

const asDate = (unix) => new Date(unix * 1000);
export const iso = (unix) => asDate(unix).toISOString();
export const utc = (unix) => `${iso(unix).replace("T", " ").slice(0, 19)} UTC`;
export const timeOfDay = (unix) => clock.format(asDate(unix));
export const moment = (unix) => long.format(asDate(unix));
export const minute = (unix) => short.format(asDate(unix));

/** A UTC day of the API, written out. */
export const utcDay = (text) => day.format(new Date(`${text}T00:00:00Z`));

export const isToday = (unix) => asDate(unix).toDateString() === new Date().toDateString();
