// The states of the last minutes as a strip, and the last changes as a list.

import { h, setText } from "./dom.js";
import { STATE_WORDS, clock, duration } from "./format.js";
import { WINDOW } from "./store.js";

const CHANGES_MAX = 8;

export class Timeline {
  strip = h("div", { class: "strip", role: "img" });
  list = h("ol", { class: "changes" });
  #drawn = "";
  #listed = "";

  update(backend, now) {
    const start = now - WINDOW;
    const spans = backend.states
      .map(([from, state], index) => ({ from: Math.max(from, start), to: backend.states[index + 1]?.[0] ?? now, state }))
      .filter(({ from, to }) => to > start && to > from);
    // The parts move with the time: whole elements are made only when there are others.
    const key = spans.map(({ state }) => state).join();
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.strip.replaceChildren(...spans.map(({ state }) => h("span", { "data-state": state }, h("b", {}))));
      this.strip.setAttribute("aria-label", `States of the last five minutes: ${spans.map(({ state }) => STATE_WORDS[state]).join(", ")}`);
    }
    spans.forEach(({ from, to, state }, index) => {
      const share = (to - from) / WINDOW;
      const span = this.strip.children[index];
      span.style.left = `${(100 * (from - start)) / WINDOW}%`;
      span.style.width = `${100 * share}%`;
      setText(span.firstChild, share > 0.12 ? STATE_WORDS[state] : "");
    });
    this.#list(backend, now);
  }

  #list(backend, now) {
    const changes = changesOf(backend);
    const key = changes.map(({ at, to }) => `${at}${to}`).join();
    if (key === this.#listed) return;
    this.#listed = key;
    this.list.replaceChildren(
      ...changes.map(({ at, to, why }) =>
        h("li", { "data-state": to }, h("time", { datetime: new Date(at * 1e3).toISOString() }, when(at, now)), h("b", {}, STATE_WORDS[to]), why && h("span", {}, why)),
      ),
    );
  }
}

/** Newest first. fusewire's own record says why; the states alone must do where it has none. */
function changesOf(backend) {
  const history = backend.detail?.history;
  const changes = history
    ? history.map(({ at, to, reason }) => ({ at: Date.parse(at) / 1e3, to, why: reason }))
    : backend.states.slice(1).map(([at, to]) => ({ at, to, why: reasonAt(backend, at, to) }));
  return changes.slice(-CHANGES_MAX).reverse();
}

function reasonAt(backend, at, to) {
  const trip = backend.breaker?.last_trip;
  if (to === "half_open") return "the recovery timeout has passed";
  return to === "open" && trip && Math.abs(Date.parse(trip.at) / 1e3 - at) < 0.01 ? trip.reason : null;
}

const when = (at, now) => (now - at > 86_400 ? `${duration(now - at)} ago` : clock(at));
