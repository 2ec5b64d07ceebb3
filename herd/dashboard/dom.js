// Builds DOM nodes and patches the page with them. Strings always become text, never markup.

const PROPERTIES = new Set(["value", "checked", "selected", "disabled", "readOnly", "indeterminate"]);
const KEPT = new Set(["open"]); // what the reader opened stays open
const HANDLERS = ["onclick", "onsubmit", "onchange", "oninput", "onkeydown", "ontoggle"];

/** A node. `attributes` may hold `on` (handlers by event), `style` and `data` (objects), `spec` (of a custom element). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node[`on${event}`] = act;
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "spec") node.spec = value;
    else if (PROPERTIES.has(name)) setProperty(node, name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

function setProperty(node, name, value) {
  node[name] = value;
  if (name === "value" && node.localName === "input") node.setAttribute("value", value);
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

/** Make the children of `host` match `fresh`, keeping focus, selection, scroll position and open details. */
export function patch(host, fresh) {
  const wanted = flat([fresh]).map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
  patchChildren(host, wanted);
}

function patchChildren(host, wanted) {
  const old = [...host.childNodes];
  const keyed = new Map(old.filter(keyOf).map((node) => [keyOf(node), node]));
  const plain = old.filter((node) => !keyOf(node));
  let place = host.firstChild;
  for (const next of wanted) {
    const found = matching(next, keyed, plain);
    const kept = found ? patchNode(found, next) : next;
    if (kept === place) place = place.nextSibling;
    else host.insertBefore(kept, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id : "";
}

function matching(next, keyed, plain) {
  const key = keyOf(next);
  if (key) {
    const found = keyed.get(key);
    keyed.delete(key);
    return found?.nodeName === next.nodeName ? found : null;
  }
  const index = plain.findIndex((node) => node.nodeName === next.nodeName);
  return index < 0 ? null : plain.splice(0, index + 1)[index];
}

function patchNode(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return old;
  }
  for (const name of HANDLERS) old[name] = next[name];
  patchAttributes(old, next);
  if ("spec" in next) old.spec = next.spec;
  else patchChildren(old, [...next.childNodes]);
  patchProperties(old, next);
  return old;
}

function patchAttributes(old, next) {
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !KEPT.has(name) && name !== "style") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name === "style" || KEPT.has(name) || (name === "value" && old === document.activeElement)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // The page's CSP blocks style attributes, but not the style object.
  if (old.style.cssText !== next.style.cssText) old.style.cssText = next.style.cssText;
}

function patchProperties(old, next) {
  if (old === document.activeElement) return;
  for (const name of ["value", "checked"]) {
    if (name in next && "form" in next && next.localName !== "button" && old[name] !== next[name])
      old[name] = next[name];
  }
  if ("disabled" in next && old.disabled !== next.disabled) old.disabled = next.disabled;
}

/** Announce a message to screen readers. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
