// Causes of failures in words, for somebody who knows the server but not fusewire.
//
// Each entry: a short name for lists, and a sentence about what was seen and what is usually behind it. `at` is the
// backend's address, `server` is Redis or Postgres.

const FAULTS = {
  refused: [
    "connection refused",
    (server, at) => `Nobody accepts connections at ${at}. ${server} is probably stopped, restarting, or listening elsewhere.`,
  ],
  unreachable: [
    "host unreachable",
    (server, at) => `There is no way to ${at}: the machine or its network is down, or the unix socket does not exist.`,
  ],
  dns: ["name not resolved", (server, at) => `The name in ${at} could not be looked up. Check the name and the DNS server.`],
  connect_timeout: [
    "connect timeout",
    (server, at) => `${at} did not answer the connection attempt in time: the machine is gone, overloaded, or a firewall drops packets.`,
  ],
  tls: ["TLS handshake failed", (server, at) => `The encrypted connection to ${at} could not be set up. Check certificates on both sides.`],
  reset: [
    "connection reset",
    (server) => `${server} broke the connection off while a call was waiting for its reply, as a crash or a kill does.`,
  ],
  eof: [
    "connection closed",
    (server) => `${server} closed the connection while a call was waiting for its reply, as a restart or a crash does.`,
  ],
  timeout: [
    "no reply in time",
    (server) => `${server} accepted the call and then stayed silent past the response timeout: it hangs, or is overloaded.`,
  ],
  malformed: ["malformed reply", (server, at) => `What came from ${at} was not valid ${server} protocol. Is it another kind of server?`],
  probe_silent: ["no reply to the probe", (server) => `${server} did not answer the probe, the one call that was let through to test it.`],
};

const REDIS = {
  LOADING: "Redis is up, but still loads its data from disk and answers no commands yet.",
  MASTERDOWN: "This Redis is a replica that has lost its primary, and it is set not to serve old data.",
  CLUSTERDOWN: "The Redis Cluster does not cover all slots: too many of its nodes are down.",
  BUSY: "Redis is busy with a script that has run for too long, and answers nothing else.",
  MISCONF: "Redis cannot save to disk and is set to refuse writes until it can.",
  OOM: "Redis is at its maxmemory limit and refuses writes.",
  READONLY: "This Redis is a read-only replica; the primary has probably moved.",
  NOREPLICAS: "Redis has fewer good replicas than it is set to need for writes.",
};

const POSTGRES = {
  "53100": "Postgres has run out of disk space.",
  "53200": "Postgres has run out of memory.",
  "53300": "Postgres has no connection left to give: max_connections is reached.",
  "57P01": "Postgres ended the connection on an administrator's command, as a shutdown or restart does.",
  "57P02": "Postgres ended the connection because one of its processes crashed.",
  "57P03": "Postgres is starting up, shutting down or recovering, and accepts no connections yet.",
  "58000": "Postgres reports a fault of its operating system.",
  "58030": "Postgres reports an I/O error: a disk may be failing.",
  XX000: "Postgres reports an internal error.",
  XX001: "Postgres reports corrupted data.",
  XX002: "Postgres reports a corrupted index.",
};

export const serverName = (protocol) => (protocol === "postgres" ? "Postgres" : "Redis");

/** `connection refused`, `LOADING error`: for lists. */
export function shortCause(label) {
  return FAULTS[label]?.[0] ?? `error ${label}`;
}

/** What a cause means, as a sentence or two. */
export function explainCause(label, backend) {
  const server = serverName(backend.protocol);
  const fault = FAULTS[label];
  if (fault) return fault[1](server, backend.upstream ?? "its address");
  const known = (backend.protocol === "postgres" ? POSTGRES : REDIS)[label];
  return known ?? `${server} answered with the error ${label}, which is set to count as a failure of the server.`;
}
