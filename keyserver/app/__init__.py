"""The composition root: the only place that names concrete parts, wires them together, starts and stops them."""

from keyserver.app.parts import HYGIENE, CannotStart, Parts, opened
from keyserver.app.running import new_loop, run, serve

__all__ = ["HYGIENE", "CannotStart", "Parts", "new_loop", "opened", "run", "serve"]
