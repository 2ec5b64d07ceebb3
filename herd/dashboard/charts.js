// Time series as charts, each with a table of the same numbers. The only file that knows the chart library.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { el, patch } from "./dom.js";
import { NONE, brief, count, minute, utc, utcDay } from "./format.js";
import { table } from "./tables.js";

const HEIGHT = 200;
const bars = uPlot.paths.bars({ size: [0.7, 28], align: 0 });
const lines = uPlot.paths.linear();
const WHOLE_STEPS = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/**
 * A figure with title, legend, canvas and table.
 *
 * `x`: unix seconds, rising; `series`: {name, values, color (a custom property), kind: "line" | "bars", dash?};
 * `level` is the heading's; `stacked` adds the series up; `show(value)` writes a value; `daily` names x as UTC days.
 */
export function chart({ title, level = "h3", about = null, x, series, show, stacked = false, daily = false, ...rest }) {
  const spec = { title, x, series, show, stacked, daily, ...rest };
  const blank =
    !x.length || series.every((each) => each.values.every((value) => value === null || value === undefined));
  return el(
    "figure",
    { class: "chart", data: { key: `chart-${title}` } },
    el("figcaption", {}, el(level, {}, title), about && el("p", { class: "muted" }, about)),
    blank ? el("p", { class: "blank" }, "No data in this window.") : [el("herd-chart", { spec }), alternative(spec)],
  );
}

const name = (spec, at) => (spec.daily ? utcDay(new Date(at * 1000).toISOString().slice(0, 10)) : minute(at));

function alternative(spec) {
  const columns = [
    {
      head: spec.daily ? "Day (UTC)" : "Time",
      first: true,
      cell: (index) => el("span", { title: utc(spec.x[index]) }, name(spec, spec.x[index])),
    },
    ...spec.series.map((each) => ({ head: each.name, number: true, cell: (index) => shown(spec, each.values[index]) })),
  ];
  const rows = spec.x.map((_, index) => index).reverse();
  const fill = (event) => {
    const box = event.currentTarget;
    if (box.open) patch(box.querySelector(".values"), [table({ caption: spec.title, columns, rows })]);
  };
  return el(
    "details",
    { class: "alternative", on: { toggle: fill } },
    el("summary", {}, "Show as table", el("span", { class: "unseen" }, `: ${spec.title}`)),
    el("herd-lazy", { class: "values", spec: fill }),
  );
}

const shown = (spec, value) => (value === null || value === undefined ? NONE : spec.show(value));

/** The table is built when the details are opened, and kept when the page is patched. */
class Lazy extends HTMLElement {
  #fill = null;
  set spec(fill) {
    this.#fill = fill;
    const box = this.closest("details");
    if (box?.open) this.#fill({ currentTarget: box });
  }
  get spec() {
    return this.#fill;
  }
}

/** The canvas with its legend. Redraws when its data, width or theme change. */
class Chart extends HTMLElement {
  #spec = null;
  #plot = null;
  #watch = new ResizeObserver(() => this.#resize());
  #redraw = () => this.#draw();

  get spec() {
    return this.#spec;
  }

  set spec(spec) {
    const same =
      this.#plot && this.#spec.series.map((each) => each.name).join() === spec.series.map((each) => each.name).join();
    this.#spec = spec;
    if (same) this.#fill();
    else if (this.isConnected) this.#draw();
  }

  connectedCallback() {
    this.#watch.observe(this);
    window.addEventListener("herd-theme", this.#redraw);
    this.#draw();
  }

  disconnectedCallback() {
    this.#watch.disconnect();
    window.removeEventListener("herd-theme", this.#redraw);
    this.#plot?.destroy();
    this.#plot = null;
  }

  #draw() {
    if (!this.#spec || !this.isConnected) return;
    this.#plot?.destroy();
    const legend = el("div", { class: "legend", "aria-hidden": "true" });
    const canvas = el("div", {
      class: "canvas",
      role: "img",
      "aria-label": `Chart: ${this.#spec.title}. The table below shows the same numbers.`,
    });
    this.replaceChildren(legend, canvas);
    this.#plot = new uPlot(options(this.#spec, this.clientWidth || 320, this), data(this.#spec), canvas);
    this.#legend(null);
  }

  #fill() {
    this.#plot.setData(data(this.#spec));
    this.#legend(null);
  }

  #resize() {
    if (this.#plot && this.clientWidth && this.#plot.width !== this.clientWidth)
      this.#plot.setSize({ width: this.clientWidth, height: HEIGHT });
  }

  /** The values under the pointer, or only the names. */
  point(index) {
    this.#legend(index);
  }

  #legend(index) {
    const { series, x } = this.#spec;
    const at = index === null || index === undefined ? null : x[index];
    patch(this.querySelector(".legend"), [
      ...series.map((each) =>
        el(
          "span",
          { class: "legend-item" },
          el("span", { class: `swatch${each.dash ? " dashed" : ""}`, style: { "--swatch": `var(${each.color})` } }),
          each.name,
          at !== null && el("b", {}, ` ${shown(this.#spec, each.values[index])}`),
        ),
      ),
      el("span", { class: "legend-at" }, at === null ? "" : name(this.#spec, at)),
    ]);
  }
}

customElements.define("herd-chart", Chart);
customElements.define("herd-lazy", Lazy);

function data({ x, series, stacked }) {
  if (!stacked) return [x, ...series.map((each) => each.values)];
  // The last series is at the bottom: each drawn value is the sum of its own and those below.
  const sums = x.map(() => 0);
  const drawn = [...series].reverse().map((each) => x.map((_, index) => (sums[index] += each.values[index] ?? 0)));
  return [x, ...drawn.reverse()];
}

function options(spec, width, host) {
  const style = getComputedStyle(document.documentElement);
  const color = (property) => style.getPropertyValue(property).trim();
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: color("--muted"), font, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 20, 0, 0], // to the right, room for half of the last name below
    tzDate: (at) => (spec.daily ? uPlot.tzDate(new Date(at * 1000), "UTC") : new Date(at * 1000)),
    scales: {
      x: { time: true, range: (_, low, high) => xRange(spec, low, high) },
      y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
    },
    axes: [
      {
        ...axis,
        size: 28,
        grid: { show: false },
        space: 70,
        values: (_, splits) => splits.map((at) => tick(spec, at, splits)),
      },
      {
        ...axis,
        size: 60,
        grid: { stroke: color("--line"), width: 1 },
        values: (_, splits) => splits.map(spec.show),
        ...(spec.show === count || spec.show === brief ? { incrs: WHOLE_STEPS } : {}), // there is no half a request
      },
    ],
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    series: [{}, ...spec.series.map((each) => seriesOptions(each, color))],
    hooks: { setCursor: [(plot) => host.point(plot.cursor.idx)] },
  };
}

function seriesOptions(each, color) {
  const stroke = color(each.color);
  const barred = each.kind === "bars";
  return {
    label: each.name,
    stroke,
    width: barred ? 0 : 1.75,
    dash: each.dash,
    fill: barred ? stroke : undefined,
    paths: barred ? bars : lines,
    points: {
      show: !barred && each.values.filter((value) => value !== null && value !== undefined).length < 3,
      size: 6,
      fill: stroke,
    },
    spanGaps: false,
  };
}

/** Padding of half a bar at either end; a single point is centred. */
function xRange(spec, low, high) {
  const step = spec.step ?? (spec.x.length > 1 ? (high - low) / (spec.x.length - 1) : 3600);
  return [low - step / 2, high + step / 2];
}

function tick(spec, at, splits) {
  const date = new Date(at * 1000);
  const zone = spec.daily ? { timeZone: "UTC" } : {};
  const long = splits.length > 1 && splits[1] - splits[0] >= 86_400;
  const midnight = date.getHours() === 0 && date.getMinutes() === 0;
  const form =
    spec.daily || long || midnight ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" };
  return new Intl.DateTimeFormat("en-GB", { ...form, ...zone }).format(date);
}
