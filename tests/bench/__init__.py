"""The benchmark: the real service beside the programs that one would deploy instead, on this machine, in one run.

Everything is started here, in a temporary folder, on 127.0.0.1. Nothing is asserted: each row says what was reached and
what was asked. docs/benchmarks.md says how it is measured and what it does not show.
"""
