//! Postgres: the frontend/backend protocol, version 3 (PROTOCOLS.md §3).
