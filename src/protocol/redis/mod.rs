//! Redis: RESP2 and RESP3 (PROTOCOLS.md §2).
