"""The composition root: the only place that names concrete parts, wires them together, starts and stops them."""

from keyserver.app.parts import CannotStart, Parts, hygiene_of, opened
from keyserver.app.running import new_loop, run, serve

__all__ = ["CannotStart", "Parts", "hygiene_of", "new_loop", "opened", "run", "serve"]
