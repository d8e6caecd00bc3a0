// Charts over the last minutes, drawn by uPlot. All of them share one time axis and one cursor.

import { WINDOW } from "./store.js";

const { uPlot } = window;

/** Width of the value axis in CSS pixels; the time line is inset by as much. */
export const AXIS = 52;

const dark = matchMedia("(prefers-color-scheme: dark)");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A chart in `host`. `series`: { key, label, color (a CSS variable), dash, fill, quiet }: a quiet one is drawn only
 * where it is not zero, so that no red line runs along the bottom of a healthy chart. `format` writes values. `tiny` leaves out axes, legend and cursor.
 */
export class Chart {
  #host;
  #options;
  #plot = null;
  #states = [];
  #data = null;
  #observer;
  #repaint = () => this.#rebuild();

  constructor(host, options) {
    this.#host = host;
    this.#options = options;
    this.#observer = new ResizeObserver(() => this.#resize());
    this.#observer.observe(host);
    dark.addEventListener("change", this.#repaint);
  }

  /** Draws the columns up to `now`. `states` shade the time when calls were rejected. */
  update(columns, states, now) {
    this.#states = states;
    this.#data = [columns.at, ...this.#options.series.map(({ key, quiet }) => (quiet ? events(columns[key]) : columns[key]))];
    if (!this.#plot) this.#rebuild();
    if (!this.#plot) return;
    this.#plot.batch(() => {
      this.#plot.setData(this.#data, false);
      this.#plot.setScale("x", { min: now - WINDOW, max: now });
    });
    const idle = this.#plot.cursor.left == null || this.#plot.cursor.left < 0;
    if (idle && !this.#options.tiny) this.#plot.setLegend({ idx: this.#data[0].length - 1 });
  }

  destroy() {
    dark.removeEventListener("change", this.#repaint);
    this.#observer.disconnect();
    this.#plot?.destroy();
  }

  #resize() {
    const { clientWidth: width } = this.#host;
    if (this.#plot && width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: this.#options.height });
  }

  #rebuild() {
    this.#plot?.destroy();
    this.#plot = null;
    const width = this.#host.clientWidth;
    if (width > 0 && this.#data) this.#plot = new uPlot(this.#config(width), this.#data, this.#host);
  }

  #config(width) {
    const { height, series, format, tiny } = this.#options;
    const [ink, line] = [style("--muted"), style("--line")];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const time = { ...axis, grid: { show: false }, incrs: [60, 120, 300], space: 44, size: 24, values: (_, times) => times.map(minutes) };
    const value = { ...axis, size: AXIS, gap: 6, space: 32, values: (_, ticks) => ticks.map(format) };
    return {
      width,
      height,
      padding: tiny ? [2, 0, 2, 0] : [8, 18, 0, 0],
      legend: { show: !tiny, markers: { width: 2, dash: (_, index) => legendDash(series[index - 1]?.dash) } },
      cursor: tiny ? { show: false } : { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
      select: { show: false },
      scales: {
        x: { time: true },
        // Never so fine that a single call looks like a flood.
        y: { range: (_, __, max) => [0, Math.max(max * 1.12 || 0, this.#options.floor ?? 1)] },
      },
      axes: [tiny ? { show: false } : time, tiny ? { show: false } : value],
      series: [{ label: "at", value: (_, at) => (at ? new Date(at * 1e3).toLocaleTimeString("en-GB") : "") }, ...series.map((one) => this.#line(one))],
      hooks: { drawClear: [(plot) => this.#shade(plot)] },
    };
  }

  #line({ label, color, dash, fill, quiet }) {
    const stroke = style(color);
    const { format, tiny } = this.#options;
    return {
      label,
      stroke,
      width: tiny ? 1.5 : 2,
      dash,
      fill: fill ? `${stroke}22` : undefined,
      points: { show: false },
      value: (_, value) => format(quiet ? (value ?? 0) : value),
    };
  }

  #shade(plot) {
    const { ctx, bbox } = plot;
    const x = (at) => Math.min(Math.max(plot.valToPos(at, "x", true), bbox.left), bbox.left + bbox.width);
    this.#states.forEach(([from, state], index) => {
      if (state === "closed") return;
      const [left, right] = [x(from), x(this.#states[index + 1]?.[0] ?? Infinity)];
      ctx.fillStyle = style(state === "open" ? "--open-shade" : "--half-shade");
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
    });
  }
}

/** The border of a legend's square, as the line is drawn: a series is known without its colour. */
const legendDash = (dash) => (!dash ? "solid" : dash[0] < dash[1] ? "dotted" : "dashed");

const minutes = (at) => new Date(at * 1e3).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Zeros between zeros as gaps. */
const events = (values) =>
  values.map((value, index) => (value === 0 && !values[index - 1] && !values[index + 1] ? null : value));
