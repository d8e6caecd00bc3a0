// Events in, views out. The address names what is shown: `#cache` one backend, `#all` none.

import { json } from "./api.js";
import { Board } from "./board.js";
import { resetAll } from "./controls.js";
import { Detail } from "./detail.js";
import { setAttribute, setText } from "./dom.js";
import { STATE_WORDS } from "./format.js";
import { Store } from "./store.js";
import { follow } from "./stream.js";

/** Between two steps of the countdowns, in milliseconds. */
const TICK = 500;

/** Up to this many backends a wide window shows the worst one from the start. */
const FEW = 12;
const WIDE = matchMedia("(min-width: 68rem)");

const element = (id) => document.getElementById(id);
const store = new Store();
const board = new Board(() => render());
const detail = new Detail(showProblem);
let chosen = null;
let known = false;
/** The name of the backend that is shown in full, if any. */
let shown = null;

function selected() {
  const hash = decodeURIComponent(location.hash.slice(1));
  if (hash === "all") return null;
  const backends = store.sorted();
  if (!hash && WIDE.matches && backends.length > 0 && backends.length <= FEW) chosen ??= backends[0].name;
  const name = hash || chosen;
  return backends.find((backend) => backend.name === name) ?? null;
}

function render() {
  const backend = selected();
  shown = backend?.name ?? null;
  document.body.classList.toggle("focused", backend !== null);
  detail.select(backend);
  board.update(store, backend?.name);
  detail.update(backend, store.now());
  summarize();
}

function summarize() {
  const all = store.sorted();
  const open = all.filter((backend) => backend.state === "open").length;
  const half = all.filter((backend) => backend.state === "half_open").length;
  const parts = [open && `${open} open`, half && `${half} half-open`].filter(Boolean);
  setText(element("summary"), parts.length ? `${parts.join(", ")} of ${all.length}` : `All ${all.length} closed`);
  setAttribute(element("summary"), "data-state", open ? "open" : half ? "half_open" : "closed");
  const title = open ? `(${open} open) fusewire` : "fusewire";
  if (document.title !== title) document.title = title;
}

function showProblem(message) {
  const notice = element("notice");
  setText(notice, message ? `${message.charAt(0).toUpperCase()}${message.slice(1)}.` : "");
  notice.hidden = !message;
}

function showLink(state, why) {
  const link = element("link");
  if (link.dataset.state === state) return;
  // The past is asked for after each break: there may be a hole, or another fusewire.
  if (state === "live") json("GET", "/api/v1/history").then((past) => store.applyHistory(past)).then(render, () => {});
  setAttribute(link, "data-state", state);
  setText(link, state === "live" ? "Live" : "Reconnecting");
  setAttribute(link, "title", why ?? null);
  document.body.classList.toggle("stale", state !== "live");
}

function onEvent(name, data) {
  if (name === "snapshot") {
    store.applySnapshot(data);
    known = true;
  } else if (name === "transition" && known) {
    store.applyTransition(data);
    const why = data.to === "open" && data.breaker.last_trip ? `: ${data.breaker.last_trip.reason}` : "";
    setText(element("announcer"), `${data.name} is now ${STATE_WORDS[data.to].toLowerCase()}${why}`);
  }
  if (known) render();
}

addEventListener("hashchange", () => {
  const before = shown;
  render();
  if (shown !== null) {
    element("detail").scrollIntoView({ block: "start" });
    detail.focus();
  } else {
    scrollTo({ top: 0 });
    board.focus(before);
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.target.closest("dialog, input") && selected()) location.hash = "all";
});
element("reset-all").addEventListener("click", () => {
  resetAll(store.sorted()).catch((error) => showProblem(error.message));
});
element("notice").addEventListener("click", () => showProblem(""));
setInterval(() => {
  board.tick(store);
  const backend = selected();
  if (backend) detail.tick(backend, store.now());
}, TICK);

follow("/api/v1/events", onEvent, showLink);
