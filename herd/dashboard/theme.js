// Sets light or dark before anything is painted. A classic script, so that it runs before the body does.
"use strict";
(function () {
  const KEY = "herd-theme";
  const systemsDark = matchMedia("(prefers-color-scheme: dark)");
  let choice = "system";

  /** The sheet goes by one attribute, whoever made the choice. */
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
      // storage may be switched off; the choice holds until the page is closed
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
