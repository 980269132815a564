"""Upstreams: one module per protocol, each a class with `fetch` (see `base`)."""
