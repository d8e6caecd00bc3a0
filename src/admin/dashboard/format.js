// Numbers and times as people read them.

export const STATE_WORDS = { closed: "Closed", half_open: "Half-open", open: "Open" };
export const MODE_WORDS = { enforce: "Enforcing", observe: "Observing", disabled: "Disabled" };

/** A count: 1,234 or 1.2M. */
export function count(n) {
  if (n == null) return "–";
  if (n >= 1e9) return `${(n / 1e9).toFixed(1)}G`;
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)}M`;
  return Math.round(n).toLocaleString("en");
}

/** Something per second. */
export function rate(n) {
  if (n == null) return "–";
  if (n >= 1e4) return `${(n / 1e3).toFixed(n >= 1e5 ? 0 : 1)}k`;
  if (n >= 10 || n === 0) return Math.round(n).toLocaleString("en");
  return n.toFixed(1);
}

/** Milliseconds, with the unit that fits. */
export function millis(ms) {
  if (ms == null) return "–";
  if (ms >= 10_000) return `${(ms / 1e3).toFixed(0)} s`;
  if (ms >= 1_000) return `${(ms / 1e3).toFixed(1)} s`;
  if (ms >= 10) return `${ms.toFixed(0)} ms`;
  if (ms >= 1) return `${ms.toFixed(1)} ms`;
  if (ms === 0) return "0 ms";
  return `${ms.toFixed(2)} ms`;
}

/** A duration in seconds: 12 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** The time of day of a Unix time. */
export function clock(seconds) {
  return new Date(seconds * 1e3).toLocaleTimeString("en-GB");
}

/** "1 call", "2 calls". */
export function plural(n, word) {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}
