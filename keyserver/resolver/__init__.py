"""The resolver: what happens on a lookup, without any protocol."""
