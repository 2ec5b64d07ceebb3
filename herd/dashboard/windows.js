// The sections' time windows, as choices kept in the address.

import { choice } from "./parts.js";
import { link } from "./route.js";

export const HOURS = { 1: "1 h", 24: "24 h", 168: "7 days", 720: "30 days" };
export const DAYS = { 1: "1 day", 7: "7 days", 30: "30 days" };

export const hoursOf = (params, usual = 24) => number(params.hours, usual, 8760);
export const daysOf = (params, usual = 7) => number(params.days, usual, 365);

export const hoursChoice = (section, params, options = HOURS) =>
  choice("Window", options, hoursOf(params), (hours) => link(section, { ...params, hours }));

export const daysChoice = (section, params) =>
  choice("Window", DAYS, daysOf(params), (days) => link(section, { ...params, days }));

function number(text, usual, most) {
  const found = Number(text);
  return Number.isInteger(found) && found >= 1 ? Math.min(found, most) : usual;
}
