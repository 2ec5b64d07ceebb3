// Sets light or dark before anything is painted. A classic script, so that it runs before the body does.
"use strict";
(function () {
  const KEY = "herd-theme";
  const root = document.documentElement;

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be switched off; the system's choice holds then
    }
  }

  function set(choice) {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // as above
    }
    window.dispatchEvent(new Event("herd-theme"));
  }

  const before = stored();
  if (before === "light" || before === "dark") root.dataset.theme = before;
  window.herdTheme = { current: () => root.dataset.theme ?? "system", set };
})();
