"""The cache on disk: one narrow protocol (`base`), the rules that hold for any database, one folder per database."""
