// The levers of a breaker. Each is confirmed, in words that say what it does to clients.

import { json } from "./api.js";
import { confirmAction } from "./dialog.js";

const BASE = "/api/v1/circuit-breaker";

const HOLDS = [
  ["", "until somebody resets it"],
  ["30s", "for 30 seconds"],
  ["5m", "for 5 minutes"],
  ["1h", "for 1 hour"],
];

/** The levers by name: their label, and what confirms them. */
const LEVERS = {
  reset: (backend) => ({
    title: `Reset ‘${backend.name}’?`,
    text: `The breaker closes at once and calls go to ${backend.upstream ?? "the backend"} again. If that is still failing, it will trip again.`,
    action: "Reset",
  }),
  trip: (backend) => ({
    title: `Trip ‘${backend.name}’?`,
    text: "Every call through it gets an error at once. Calls and transactions that are under way run to their end.",
    action: "Trip",
    danger: true,
    choices: HOLDS,
  }),
  enforce: (backend) => ({
    title: `Enforce ‘${backend.name}’?`,
    text: "From now on calls are rejected while the breaker is open.",
    action: "Enforce",
  }),
  observe: (backend) => ({
    title: `Only observe ‘${backend.name}’?`,
    text: "The breaker goes on deciding, counting and logging, but rejects nothing.",
    action: "Observe",
    danger: true,
  }),
  disable: (backend) => ({
    title: `Disable ‘${backend.name}’?`,
    text: "The breaker stays closed whatever happens: clients wait for a dead backend as they would without fusewire.",
    action: "Disable",
    danger: true,
  }),
};

let offered = null;

/** Which levers this fusewire has, by its index. */
export async function offers() {
  offered ??= json("GET", "/api/v1")
    .then((index) => Object.keys(LEVERS).filter((name) => index.post.some((path) => path.includes(`/${name}/{name}`))))
    .catch((error) => {
      offered = null;
      throw error;
    });
  return offered;
}

/** Asks, then pulls the lever. Resolves to whether it was pulled. */
export async function pull(lever, backend) {
  const answer = await confirmAction(LEVERS[lever](backend));
  if (answer === null) return false;
  const query = answer ? `?for=${answer}` : "";
  await json("POST", `${BASE}/${lever}/${encodeURIComponent(backend.name)}${query}`);
  return true;
}

/** Asks, then resets every breaker. */
export async function resetAll(backends) {
  const open = backends.filter((backend) => backend.state !== "closed");
  const answer = await confirmAction({
    title: "Reset every breaker?",
    text: open.length
      ? `${open.map((backend) => `‘${backend.name}’`).join(", ")} will close at once. What is still failing will trip again.`
      : "All of them are closed; their runs of failures start again from zero.",
    action: "Reset all",
  });
  if (answer !== null) await json("POST", `${BASE}/reset-all`);
}
