// The tabs, and what they show when they are first opened.

import { get } from "./api.js";
import { el, fill, problem } from "./dom.js";
import { merge, read } from "./state.js";

const VIEWS = [
  ["try", "Try", () => true, "./try.js"],
  ["store", "Store", (about) => about.store, "./store.js"],
  ["evaluation", "Evaluation", (about) => about.evaluations, "./evaluation.js"],
  ["map", "Map result", (about) => about.maps, "./map.js"],
];

async function start() {
  const about = await get("/v1/about");
  const views = VIEWS.filter(([, , there]) => there(about));
  const main = document.getElementById("main");
  const tabs = document.getElementById("tabs");
  const short = about.model.length > 44 ? `…${about.model.slice(-43)}` : about.model;
  fill(document.getElementById("model"), short).title = about.model;
  const opened = new Map();

  async function show(name, focus) {
    for (const [key] of views) {
      const tab = document.getElementById(`tab-${key}`);
      tab.setAttribute("aria-selected", String(key === name));
      tab.tabIndex = key === name ? 0 : -1;
      document.getElementById(`panel-${key}`).hidden = key !== name;
    }
    if (focus) document.getElementById(`tab-${name}`).focus();
    merge({ tab: name });
    if (!opened.has(name)) {
      opened.set(name, true);
      const { open } = await import(views.find(([key]) => key === name)[3]);
      await open(document.getElementById(`panel-${name}`), about);
    }
    window.dispatchEvent(new Event("resize"));
  }

  const guarded = (name, focus) => show(name, focus).catch((error) => problem(error.message));
  fill(tabs, views.map(([key, text]) => el("button", {
    role: "tab", id: `tab-${key}`, type: "button", "aria-controls": `panel-${key}`, onclick: () => guarded(key),
  }, text)));
  fill(main, views.map(([key]) => el("section", { role: "tabpanel", id: `panel-${key}`, "aria-labelledby": `tab-${key}`, hidden: true, class: "panel" })));
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const now = views.findIndex(([key]) => document.getElementById(`tab-${key}`) === document.activeElement);
    if (step && now >= 0) guarded(views[(now + step + views.length) % views.length][0], true);
    if (event.key === "Home") guarded(views[0][0], true);
    if (event.key === "End") guarded(views[views.length - 1][0], true);
  });
  const asked = read().tab;
  await show(views.some(([key]) => key === asked) ? asked : "try");
  document.body.dataset.ready = "yes";
}

start().catch((error) => problem(error.message));
