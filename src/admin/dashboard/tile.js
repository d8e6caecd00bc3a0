// One backend on the board: state, countdown, the last minutes in small, the last second's figures.

import { Chart } from "./chart.js";
import { h, setAttribute, setText, switchGlyph } from "./dom.js";
import { MODE_WORDS, STATE_WORDS, duration, millis, rate } from "./format.js";
import { because } from "./trip.js";

const SPARK = [
  { key: "calls", label: "calls", color: "--calls", fill: true },
  { key: "rejections", label: "rejections", color: "--rejections", dash: [3, 3], quiet: true },
  { key: "failures", label: "failures", color: "--failures", dash: [1, 2], quiet: true },
];

export class Tile {
  #glyph = switchGlyph();
  #state = h("b", { class: "word" });
  #mode = h("span", { class: "mode", hidden: true });
  #next = h("span", { class: "next" });
  #because = h("span", { class: "because" });
  #bar = h("i", {});
  #figures = ["calls/s", "failed/s", "rejected/s", "p99"].map((label) => ({ label, value: h("dd", {}) }));
  #spark = h("div", { class: "spark", "aria-hidden": "true" });
  #chart;

  constructor(name, protocol) {
    const figures = this.#figures.map(({ label, value }) => h("div", {}, h("dt", {}, label), value));
    this.link = h(
      "a",
      { href: `#${encodeURIComponent(name)}`, "data-name": name },
      h("span", { class: "head" }, this.#glyph.svg, h("strong", { class: "name", title: name }, name), h("span", { class: "protocol" }, protocol)),
      h("span", { class: "status" }, this.#state, this.#mode, this.#next),
      this.#because,
      h("span", { class: "countdown", "aria-hidden": "true" }, this.#bar),
      this.#spark,
      h("dl", { class: "figures" }, figures),
    );
    this.element = h("li", { class: "tile" }, this.link);
    this.#chart = new Chart(this.#spark, { height: 40, series: SPARK, format: rate, tiny: true, floor: 4 });
  }

  update(backend, now, selected) {
    const { state, mode, samples } = backend;
    setAttribute(this.element, "data-state", state);
    setAttribute(this.link, "aria-current", selected ? "true" : null);
    this.#glyph.show(state);
    setText(this.#state, STATE_WORDS[state]);
    this.#mode.hidden = !mode || mode === "enforce";
    setText(this.#mode, MODE_WORDS[mode] ?? "");
    setText(this.#because, because(backend));
    const last = (key) => samples[key].at(-1);
    const values = [rate(last("calls")), rate(last("failures")), rate(last("rejections")), millis(last("p99_ms"))];
    this.#figures.forEach(({ value }, index) => {
      setText(value, values[index]);
      setAttribute(value, "data-some", [false, last("failures") > 0, last("rejections") > 0, false][index] ? "" : null);
    });
    this.#chart.update(samples, backend.states, now);
    this.tick(backend, now);
  }

  /** The countdown alone, several times a second. */
  tick(backend, now) {
    setText(this.#next, nextStep(backend, now));
    const share = backend.state === "open" && backend.retryAt !== null ? (backend.retryAt - now) / (backend.retryAt - backend.since) : 0;
    this.#bar.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  }

  destroy() {
    this.#chart.destroy();
    this.element.remove();
  }
}

/** What the breaker does next, in a few words. */
export function nextStep({ state, retryAt, breaker, threshold }, now) {
  if (state === "open") return retryAt === null ? "until reset" : `next probe in ${duration(retryAt - now)}`;
  if (state === "half_open") return "waiting for a probe";
  const run = breaker.metrics.consecutive_failures;
  return run > 0 ? `${run}${threshold ? ` of ${threshold}` : ""} failures in a row` : "";
}
