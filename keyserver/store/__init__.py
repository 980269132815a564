"""The cache on disk: one narrow protocol (`base`), one module per database."""
