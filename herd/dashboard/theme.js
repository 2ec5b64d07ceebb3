// Applies the theme before the first paint. A classic script, so that it runs before the body.
"use strict";
(function () {
  const KEY = "herd-theme";
  const systemsDark = matchMedia("(prefers-color-scheme: dark)");
  let choice = "system";

  /** The style sheet depends on one attribute only. */
  function apply() {
    const dark = choice === "dark" || (choice === "system" && systemsDark.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    window.dispatchEvent(new Event("herd-theme"));
  }

  function set(next) {
    choice = next;
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // storage may be disabled; the choice then lasts until the page is closed
    }
    apply();
  }

  try {
    const stored = localStorage.getItem(KEY);
    if (stored === "light" || stored === "dark") choice = stored;
  } catch {
    // as above
  }
  systemsDark.addEventListener("change", apply);
  apply();
  window.herdTheme = { current: () => choice, set };
})();
