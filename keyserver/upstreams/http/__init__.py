"""The HTTP client of the upstreams."""
