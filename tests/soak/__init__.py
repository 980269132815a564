"""Simulated days of a service under load with every fault at once; `scripts/soak` runs it."""
