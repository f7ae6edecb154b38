// Elements from words. Text is always text: nothing here reads HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function select(label, options, value, change) {
  const field = el("select", { onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) field.append(el("option", { value: key, selected: key === value }, text));
  return el("label", { class: "field" }, el("span", {}, label), field);
}

export function slider(label, value, change) {
  const field = el("input", { type: "range", min: "0", max: "100", value: String(Math.round(value * 100)) });
  field.addEventListener("input", () => change(Number(field.value) / 100));
  return el("label", { class: "field" }, el("span", {}, label), field);
}

// What a screen reader says. A repeated sentence is said again.
export function speak(text) {
  const node = document.getElementById("spoken");
  node.textContent = "";
  setTimeout(() => { node.textContent = text; }, 30);
}

export function problem(text) {
  const node = document.getElementById("problem");
  fill(node);
  if (!text) return;
  fill(node, el("p", { class: "notice bad" }, el("span", {}, text),
    el("button", { type: "button", class: "plain", "aria-label": "Close the message", onclick: () => problem("") }, "✕")));
}

export const percent = (share) => (share >= 0.1 ? (100 * share).toFixed(0) : (100 * share).toFixed(2)) + " %";

export function area(metres) {
  if (metres === null || metres === undefined) return null;
  if (metres >= 1e6) return (metres / 1e6).toFixed(2) + " km²";
  if (metres >= 1e5) return (metres / 1e4).toFixed(1) + " ha";
  return metres.toFixed(metres < 100 ? 1 : 0) + " m²";
}
