// The runbook page is static text; only the menu is active: it closes when a link is followed.

import { menuButton, openMenu, themeButton } from "./frame.js";

menuButton();
themeButton();
window.addEventListener("hashchange", () => openMenu(false));
