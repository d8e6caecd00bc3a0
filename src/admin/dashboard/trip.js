// Why a breaker last opened, told as a story: what was seen, what it means, what happens next.

import { explainCause, serverName, shortCause } from "./causes.js";
import { h } from "./dom.js";
import { clock, count, duration, millis, plural } from "./format.js";

const KINDS = { connect: "Connecting", command: "Command", startup: "Login", query: "Query", check: "Check" };

/** The last trip with its evidence, as elements. */
export function tripStory(backend) {
  const trip = backend.breaker.last_trip;
  if (!trip) return [h("p", { class: "calm" }, "It has not tripped since fusewire was started.")];
  return [
    h("p", { class: "verdict" }, condition(trip, backend)),
    trip.cause && h("p", {}, explainCause(trip.cause, backend)),
    trip.evidence.length > 0 && evidence(trip.evidence),
  ].filter(Boolean);
}

/** What fusewire's own test of the server last found; nothing if it makes none. */
export function checked(backend) {
  const { when, last } = backend.breaker.check ?? { when: "off" };
  if (when === "off") return "";
  const server = serverName(backend.protocol);
  if (!last) return `Checks ${server} by itself ${when === "always" ? "all the time" : "while not closed"}: not yet.`;
  const found = {
    ready: `${server} is ready`,
    alive: `${server} answers, which does not say whether it serves calls`,
    failed: `failed (${shortCause(last.cause)})`,
    nothing: "could not be made: out of descriptors, ports or memory",
  };
  return `Last check at ${clock(Date.parse(last.at) / 1e3)}: ${found[last.result] ?? last.result}, ${millis(last.duration_ms)}.`;
}

/** Why a breaker is not closed, in two or three words for lists; nothing if it is. */
export function because({ state, breaker }) {
  const trip = breaker.last_trip;
  if (state === "closed" || !trip) return "";
  if (trip.cause) return shortCause(trip.cause);
  return { manual: "opened by hand", probe_slow: "test call too slow" }[trip.condition] ?? "calls too slow";
}

/** What the present state means for clients, in a sentence or two. `now` is fusewire's time. */
export function consequence(backend, now) {
  const { state, mode, retryAt, breaker } = backend;
  const server = serverName(backend.protocol);
  if (mode === "disabled") return `Disabled: every call goes to ${server}, whatever happens to it.`;
  const spared = `It only observes: calls still go to ${server}, and are counted as what it would have rejected.`;
  const refused = mode === "observe" ? spared : `Calls get an error at once instead of waiting for ${server}.`;
  if (state === "open") {
    const next =
      retryAt === null
        ? "It stays open until somebody resets it."
        : `In ${duration(retryAt - now)} one call is let through as a test; if it succeeds, the breaker closes.`;
    return `${opened(backend, now)} ${refused} ${next}`;
  }
  if (state === "half_open") {
    const others = mode === "observe" ? spared : "Until then all others get an error at once.";
    return `The next call is let through as a test. If it succeeds the breaker closes, if it fails it opens again. ${others}`;
  }
  const seen = mode === "observe" ? " It only observes: nothing is rejected." : "";
  const run = breaker.metrics.consecutive_failures;
  const limit = backend.threshold ? ` of ${count(backend.threshold)}` : "";
  const failing = run > 0 ? ` ${count(run)}${limit} failures in a row so far.` : "";
  const slow = breaker.slow_start ? " After its recovery not every call is let through yet." : "";
  return `All calls go to ${server}.${failing}${slow}${seen}`;
}

/** When it opened and why, in a sentence. */
function opened({ since, breaker }, now) {
  const trip = breaker.last_trip;
  const why = {
    manual: () => "an operator opened it by hand",
    consecutive_failures: () => `calls kept failing (${shortCause(trip.cause)})`,
    probe_failed: () => `a test call failed as well (${shortCause(trip.cause)})`,
    probe_slow: () => "a test call took too long",
    check_failed: () => `fusewire's own check failed (${shortCause(trip.cause)})`,
  }[trip?.condition];
  const reason = why?.() ?? (trip ? `of a ${trip.reason}` : "of an earlier trip");
  return `It opened ${duration(now - since)} ago because ${reason}.`;
}

function condition(trip, backend) {
  const failures = trip.evidence.filter((outcome) => outcome.verdict === "failure").length;
  switch (trip.condition) {
    case "manual":
      return "An operator opened it by hand.";
    case "consecutive_failures":
      return `${plural(failures || backend.threshold || 0, "call")} in a row failed, and that is its limit: ${shortCause(trip.cause)}.`;
    case "probe_failed":
      return `It was half-open and let one call through as a test. That failed too: ${shortCause(trip.cause)}.`;
    case "probe_slow":
      return "It was half-open and let one call through as a test. That succeeded, but took longer than a call may.";
    case "check_failed":
      return `fusewire's own ${plural(trip.evidence.length, "check")} of ${serverName(backend.protocol)} failed: ${shortCause(trip.cause)}.`;
    default:
      return `${trip.reason.charAt(0).toUpperCase()}${trip.reason.slice(1)}.`;
  }
}

/** Newest first: the last failure is the one that people look for. */
function evidence(outcomes) {
  const head = ["Time", "Call", "Outcome", "Took"].map((title) => h("th", { scope: "col" }, title));
  const rows = outcomes.toReversed().map((outcome) =>
    h(
      "tr",
      {},
      h("td", {}, clock(Date.parse(outcome.at) / 1e3)),
      h("td", {}, KINDS[outcome.kind] ?? outcome.kind),
      h("td", { class: outcome.verdict }, outcome.cause ? shortCause(outcome.cause) : outcome.verdict),
      h("td", { class: "number" }, millis(outcome.duration_ms)),
    ),
  );
  return h(
    "details",
    { class: "evidence", open: true },
    h("summary", {}, outcomes.length === 1 ? "The evidence: one call" : `The evidence: the last ${count(outcomes.length)} calls`),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Evidence" },
      h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))),
  );
}
