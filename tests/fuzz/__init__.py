"""Coverage-guided fuzzing of everything that reads octets of strangers; `scripts/fuzz` runs it."""
