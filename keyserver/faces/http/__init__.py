"""The HTTP face: HKP lookups, pages and certificates."""
