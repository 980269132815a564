"""HKP keyservers as upstreams."""
