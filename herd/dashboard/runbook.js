// The runbook's page is text; only its frame moves: the menu closes when one of its links was followed.

import { menuButton, openMenu, themeButton } from "./frame.js";

menuButton();
themeButton();
window.addEventListener("hashchange", () => openMenu(false));
