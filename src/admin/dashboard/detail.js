// One backend in full: what it does, why it last tripped, its last minutes, its levers.

import { Chart } from "./chart.js";
import { shortCause } from "./causes.js";
import { offers, pull } from "./controls.js";
import { h, setAttribute, setText, switchGlyph } from "./dom.js";
import { MODE_WORDS, STATE_WORDS, clock, count, duration, millis, rate } from "./format.js";
import { nextStep } from "./tile.js";
import { Timeline } from "./timeline.js";
import { checked, consequence, tripStory } from "./trip.js";

const CHARTS = [
  {
    title: "Calls per second",
    format: rate,
    floor: 4,
    series: [
      { key: "calls", label: "calls", color: "--calls", fill: true },
      { key: "failures", label: "failures", color: "--failures", dash: [2, 3], quiet: true },
      { key: "rejections", label: "rejections", color: "--rejections", dash: [6, 4], quiet: true },
    ],
  },
  {
    title: "Latency",
    format: millis,
    floor: 0.1,
    series: [
      { key: "p50_ms", label: "p50", color: "--p50", fill: true },
      { key: "p99_ms", label: "p99", color: "--p99", dash: [6, 4] },
    ],
  },
  { title: "In flight", format: count, floor: 4, series: [{ key: "in_flight", label: "calls in flight", color: "--calls", fill: true }] },
];

const FIGURES = [
  ["Calls/s", ({ samples }) => rate(samples.calls.at(-1))],
  ["Failures/s", ({ samples }) => rate(samples.failures.at(-1))],
  ["Rejections/s", ({ samples }) => rate(samples.rejections.at(-1))],
  ["p50", ({ samples }) => millis(samples.p50_ms.at(-1))],
  ["p99", ({ samples }) => millis(samples.p99_ms.at(-1))],
  ["In flight", ({ samples, breaker }) => within(samples.in_flight.at(-1), breaker?.bulkhead?.max_calls)],
];

/** How many there are, of how many there may be. */
const within = (n, limit) => (limit ? `${count(n)} of ${count(limit)}` : count(n));

const LEVER_WORDS = { reset: "Reset…", trip: "Trip…", enforce: "Enforce…", observe: "Observe…", disable: "Disable…" };
const MODE_LEVERS = { enforce: "enforce", observe: "observe", disable: "disabled" };

export class Detail {
  #root = document.getElementById("detail");
  #onProblem;
  #name = null;
  #parts = null;

  constructor(onProblem) {
    this.#onProblem = onProblem;
  }

  /** Shows this backend, or nothing. */
  select(backend) {
    const name = backend?.name ?? null;
    if (name === this.#name) return;
    this.#parts?.charts.forEach((chart) => chart.destroy());
    this.#name = name;
    this.#parts = null;
    this.#root.hidden = !backend;
    this.#root.replaceChildren();
    if (backend) this.#parts = this.#build(backend);
  }

  /** The keyboard goes on from here. */
  focus() {
    document.getElementById("detail-name")?.focus({ preventScroll: true });
  }

  update(backend, now) {
    const parts = this.#parts;
    if (!parts || !backend) return;
    parts.backend = backend;
    setAttribute(this.#root, "data-state", backend.state);
    parts.glyph.show(backend.state);
    setText(parts.state, STATE_WORDS[backend.state]);
    parts.mode.hidden = !backend.mode || backend.mode === "enforce";
    setText(parts.mode, MODE_WORDS[backend.mode] ?? "");
    const check = checked(backend);
    parts.checked.hidden = check === "";
    setText(parts.checked, check);
    setText(parts.address, `${backend.listen ?? "?"} → ${backend.upstream ?? "?"}`);
    parts.figures.forEach((element, index) => setText(element, FIGURES[index][1](backend)));
    parts.charts.forEach((chart) => chart.update(backend.samples, backend.states, now));
    parts.timeline.update(backend, now);
    this.#showLevers(backend);
    this.#showTrip(backend);
    this.#showCounts(backend);
    this.tick(backend, now);
  }

  tick(backend, now) {
    if (!this.#parts || !backend?.breaker) return;
    setText(this.#parts.consequence, consequence(backend, now));
    setText(this.#parts.next, nextStep(backend, now) || `for ${duration(now - backend.since)}`);
  }

  #build(backend) {
    const parts = {
      backend,
      glyph: switchGlyph(),
      state: h("b", { class: "word" }),
      mode: h("span", { class: "mode", hidden: true }),
      next: h("span", { class: "next" }),
      address: h("p", { class: "address" }),
      consequence: h("p", { class: "consequence" }),
      checked: h("p", { class: "checked" }),
      levers: h("div", { class: "levers", role: "group", "aria-label": "Controls" }),
      figures: FIGURES.map(() => h("dd", {})),
      timeline: new Timeline(),
      why: h("div", { class: "why" }),
      whyTitle: h("h3", {}, "Why it last tripped"),
      causes: h("dl", { class: "counts" }),
      totals: h("dl", { class: "counts" }),
      shown: {},
    };
    const hosts = CHARTS.map(() => h("div", { class: "plot" }));
    this.#root.append(
      h("header", {},
        h("a", { class: "back", href: "#all" }, "All backends"),
        h("h2", { id: "detail-name", tabindex: -1 }, backend.name, h("span", { class: "protocol" }, backend.protocol)),
        parts.address,
        h("p", { class: "status" }, parts.glyph.svg, parts.state, parts.mode, parts.next),
        parts.consequence,
        parts.checked,
        parts.levers),
      h("dl", { class: "tiles" }, FIGURES.map(([label], index) => h("div", {}, h("dt", {}, label), parts.figures[index]))),
      h("div", { class: "columns" },
        h("section", { class: "card story" }, parts.whyTitle, parts.why),
        h("section", { class: "card history" }, h("h3", {}, "The last five minutes"), parts.timeline.strip,
          CHARTS.map(({ title }, index) => h("figure", {}, h("figcaption", {}, title), hosts[index]))),
        h("section", { class: "card changed" }, h("h3", {}, "State changes"), parts.timeline.list),
        h("section", { class: "card caused" }, h("h3", {}, "Failures by cause"), parts.causes),
        h("section", { class: "card totals" }, h("h3", {}, "Since the start"), parts.totals)),
    );
    parts.charts = CHARTS.map((chart, index) => new Chart(hosts[index], { height: 132, ...chart }));
    offers()
      .then((names) => {
        parts.buttons = names.map((lever) => [lever, this.#lever(lever, parts)]);
        parts.levers.replaceChildren(...parts.buttons.map(([, button]) => button));
        this.#showLevers(parts.backend);
      })
      .catch((error) => this.#onProblem(error.message));
    return parts;
  }

  #lever(lever, parts) {
    const act = () => pull(lever, parts.backend).catch((error) => this.#onProblem(error.message));
    return h("button", { type: "button", "data-lever": lever, onclick: act }, LEVER_WORDS[lever]);
  }

  /** The mode that it is in is no choice; an open breaker asks for a reset first of all. */
  #showLevers(backend) {
    for (const [lever, button] of this.#parts?.buttons ?? []) {
      button.hidden = lever in MODE_LEVERS && (backend.mode ?? "enforce") === MODE_LEVERS[lever];
      if (lever === "trip") button.disabled = backend.mode === "disabled";
      button.className = lever === "reset" && backend.state !== "closed" ? "primary" : "quiet";
    }
  }

  #showTrip(backend) {
    const { why, whyTitle, shown } = this.#parts;
    const trip = backend.breaker.last_trip;
    const key = `${trip?.at} ${backend.upstream} ${backend.threshold}`;
    if (shown.trip === key) return;
    shown.trip = key;
    setText(whyTitle, trip ? `Why it last tripped, at ${clock(Date.parse(trip.at) / 1e3)}` : "Why it last tripped");
    why.replaceChildren(...tripStory(backend));
  }

  #showCounts(backend) {
    const { causes, totals } = this.#parts;
    const { detail, breaker } = backend;
    if (!detail) return;
    const some = Object.entries(detail.failures_by_cause).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
    list(causes, some.length ? some.map(([cause, n]) => [shortCause(cause), n]) : [["none", 0]], "bars");
    const most = breaker.bulkhead?.max_connections;
    const rejected = Object.entries(detail.rejections).filter(([key, n]) => key !== "total" && n > 0);
    list(totals, [
      ["calls", breaker.metrics.total_calls],
      ["succeeded", breaker.metrics.successful_calls],
      ["failed", breaker.metrics.failed_calls],
      ["not counted", breaker.metrics.ignored_calls],
      ["rejected", breaker.metrics.rejected_calls],
      ...rejected.map(([key, n]) => [`– ${key.replaceAll("_", " ")}`, n]),
      ["probes", breaker.metrics.probes],
      ["trips", breaker.metrics.trips],
      ["client connections", detail.connections.active],
      ...(most ? [[`connections, of ${count(most)} at most`, breaker.bulkhead.connections]] : []),
    ]);
  }
}

/** Names and numbers; with `bars` each number also has a length. */
function list(element, rows, bars) {
  const most = Math.max(...rows.map(([, n]) => n), 1);
  const items = rows.map(([label, n]) => {
    const item = h("div", {}, h("dt", {}, label), h("dd", {}, count(n)));
    if (bars && n > 0) item.append(h("i", { "aria-hidden": "true" }));
    if (bars && n > 0) item.lastChild.style.width = `${(100 * n) / most}%`;
    return item;
  });
  element.replaceChildren(...items);
}
