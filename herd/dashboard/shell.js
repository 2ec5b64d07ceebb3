// Shows one section at a time: loads its data, patches the page with its view, and repeats that when
// something changed. It knows nothing of any section's content.

import { ApiError } from "./api.js";
import { announce, el, patch } from "./dom.js";
import { absent, failed, heading, unavailable } from "./parts.js";
import { current, link } from "./route.js";

const SLOWLY_MS = 30_000; // how old a view may be while nobody says that something changed
const RENDER_MS = 500;
const NOWHERE = { id: "nowhere", title: "No such page", load: async () => null };
const LOADING_MS = 200; // a load that is faster than this shows no sign of itself

export class Shell {
  #main;
  #sections;
  #section = null;
  #route = null;
  #under = null; // the load under way
  #again = false;
  #last = 0;
  #timer = null;
  #coming = null;
  #data = undefined; // what was read last, and the error of the read after it
  #state = {};
  #left = null; // the detail that was shown before its list
  #scroll = 0; // how far down that list was when the detail was opened

  constructor(main, sections) {
    this.#main = main;
    this.#sections = sections;
    window.addEventListener("hashchange", () => this.#navigate());
    setInterval(() => this.#grownOld(), 1000);
  }

  /** Show the section in the address. */
  start() {
    this.#navigate();
  }

  /** Handle an event; `kind` is its name in the live feed. */
  happened(kind, data) {
    const live = this.#section?.live?.(this.#route) ?? {};
    if (kind !== "poll" && this.#section?.heard?.(kind, data, this.#context())) this.#renderSoon();
    if (kind === "poll" ? live.on?.length : live.on?.includes(kind)) this.#soon(live.least_ms ?? 1000);
  }

  #navigate() {
    const route = current();
    const section = this.#sectionOf(route.section);
    const same = section === this.#section && route.id === this.#route?.id;
    const first = !this.#section; // the browser puts the focus at the page's beginning by itself
    this.#under?.abort();
    this.#under = null;
    this.#again = false;
    this.#left = this.#route?.id && !route.id && section === this.#section ? this.#route.id : null;
    if (!this.#route?.id && route.id) this.#scroll = window.scrollY;
    this.#route = route;
    this.#section = section;
    if (!same) this.#enter();
    this.#load(!same && !first);
  }

  #sectionOf(name) {
    if (!name) return this.#sections[0];
    return this.#sections.find((each) => each.id === name) ?? { ...NOWHERE, view: () => this.#nowhere(name) };
  }

  /** An unknown section: a typing error, or a link from an older version. */
  #nowhere(name) {
    return [
      heading(NOWHERE.title),
      el("p", {}, "No section named ", el("code", {}, name), ". Available sections:"),
      el(
        "ul",
        { class: "plain" },
        this.#sections.map(({ id, title }) => el("li", {}, el("a", { href: link(id) }, title))),
      ),
    ];
  }

  #enter() {
    this.#state = {};
    this.#data = undefined;
    this.#main.dataset.section = this.#section.id;
    this.#main.replaceChildren();
    document.title = `${this.#section.title} · Herd`;
    window.dispatchEvent(new CustomEvent("herd-section", { detail: this.#section.id }));
  }

  async #load(entered = false) {
    if (this.#under) {
      this.#again = true;
      return;
    }
    const [mine, section, route] = [new AbortController(), this.#section, this.#route];
    this.#under = mine;
    this.#last = Date.now();
    const waiting = setTimeout(() => this.#main.setAttribute("aria-busy", "true"), LOADING_MS);
    try {
      const data = await section.load(route, mine.signal);
      if (this.#under !== mine) return;
      this.#data = { data };
    } catch (error) {
      if (this.#under !== mine) return;
      if (!(error instanceof ApiError)) throw error;
      this.#data = { ...(error.status === 0 ? this.#data : {}), error };
    } finally {
      clearTimeout(waiting);
      if (this.#under === mine) this.#ended();
    }
    this.#render();
    if (entered) this.#arrived();
  }

  #ended() {
    this.#under = null;
    this.#main.removeAttribute("aria-busy");
    if (this.#again) {
      this.#again = false;
      this.#soon(1000);
    }
  }

  /** Limits updates to two per second, even with thousands of requests per second. */
  #renderSoon() {
    this.#coming ??= setTimeout(() => {
      this.#coming = null;
      this.#render();
    }, RENDER_MS);
  }

  #render() {
    if (!this.#data) return;
    const { data, error } = this.#data;
    if (data !== undefined)
      patch(this.#main, [error && this.#stale(error), this.#section.view(data, this.#route, this.#context())]);
    else patch(this.#main, this.#broken(error));
  }

  #broken(error) {
    const { id, title } = this.#section;
    if (!this.#route.id) return [heading(title), error.status === 404 ? unavailable(title) : failed(error)];
    return [
      heading(title, el("a", { rel: "up", href: link(id, this.#route.params) }, `All ${title.toLowerCase()}`)),
      error.status === 404 ? absent(error) : failed(error),
    ];
  }

  #absent() {
    return this.#route.id && this.#data.error.status === 404;
  }

  #stale(error) {
    return el(
      "p",
      { class: "note bad", role: "alert" },
      `${error.message} Last updated at ${new Date(this.#last).toLocaleTimeString("en-GB")}.`,
    );
  }

  /** Focus moves to the new title only after navigation. */
  #arrived() {
    const focused = document.activeElement;
    const back =
      this.#left &&
      [...this.#main.querySelectorAll("tbody a")].find((each) =>
        each.hash.startsWith(link(this.#section.id, {}, this.#left)),
      );
    if (back) {
      window.scrollTo(0, this.#scroll);
      back.focus({ preventScroll: true });
      return;
    }
    if (this.#route.params.focus === "search") this.#main.querySelector("input[type=search]")?.focus();
    else if (!focused?.closest("dialog")) this.#main.querySelector("h1")?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
    announce(`${this.#section.title} section`);
  }

  #context() {
    const [section, route] = [this.#section, this.#route];
    return {
      state: this.#state,
      route,
      render: () => section === this.#section && this.#render(),
      reload: () => section === this.#section && route.id === this.#route.id && this.#load(),
    };
  }

  #soon(least_ms) {
    if (this.#timer || document.hidden) return;
    const wait = Math.max(0, this.#last + least_ms - Date.now());
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#load();
    }, wait);
  }

  #grownOld() {
    if (document.hidden || this.#under || this.#timer) return;
    const live = this.#section?.live?.(this.#route);
    const every = live?.every_ms ?? SLOWLY_MS;
    if (live && Date.now() - this.#last >= every) this.#load();
    else if (!live && this.#data?.error && !this.#absent() && Date.now() - this.#last >= 5000) this.#load();
  }
}
