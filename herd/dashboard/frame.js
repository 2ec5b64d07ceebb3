// The frame around every page: the narrow-screen menu and the theme switch.

const THEMES = ["system", "light", "dark"];

export function openMenu(open) {
  document.getElementById("menu").setAttribute("aria-expanded", String(open));
  document.querySelector(".side").classList.toggle("open", open);
}

export function menuButton() {
  const button = document.getElementById("menu");
  button.onclick = () => openMenu(button.getAttribute("aria-expanded") !== "true");
}

export function themeButton() {
  const button = document.getElementById("theme");
  const write = () => (button.textContent = `Theme: ${window.herdTheme.current()}`);
  button.onclick = () => {
    window.herdTheme.set(THEMES[(THEMES.indexOf(window.herdTheme.current()) + 1) % THEMES.length]);
    write();
  };
  write();
}
