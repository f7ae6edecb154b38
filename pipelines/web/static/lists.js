// What the views of many samples share: filters, a list of a page, and a legend that needs no colours.

import { el, fill } from "./dom.js";

export function filters(facets, chosen, change) {
  return el("div", { class: "filters" }, Object.entries(facets).map(([name, values]) => {
    const options = [el("option", { value: "" }, "all"), ...values.map(({ value, n }) => el("option", { value, selected: chosen[name] === value }, `${value || "none"} (${n.toLocaleString("en")})`))];
    return el("label", { class: "field" }, el("span", {}, name),
      el("select", { name, onchange: (event) => change(name, event.target.value) }, options));
  }));
}

export function pages(found, turn) {
  if (found.pages < 2) return null;
  const button = (text, page) => el("button", { type: "button", disabled: page < 0 || page >= found.pages, onclick: () => turn(page) }, text);
  return el("nav", { class: "pages", "aria-label": "Pages" }, button("Back", found.page - 1),
    el("span", { class: "quiet" }, `${found.page + 1} of ${found.pages.toLocaleString("en")}`), button("Next", found.page + 1));
}

export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return new URLSearchParams(kept).toString();
}

export function press(list, button) {
  for (const one of list.querySelectorAll("[aria-pressed=true]")) one.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", "true");
}

export const legend = () => el("ul", { class: "legend", "aria-label": "Legend" },
  [["hit", "hit"], ["missed", "missed"], ["wrong", "false"]].map(([kind, text]) => el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text)));

export function frame(panel, stage) {
  const side = el("div", { class: "side" });
  fill(panel, el("div", { class: "split" }, stage, side));
  return side;
}
