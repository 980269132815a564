"""The composition root: the only place that names concrete parts, wires them together, starts and stops them."""

from keyserver.app.cache import hygiene_of
from keyserver.app.context import CannotStart
from keyserver.app.parts import Parts, opened
from keyserver.app.running import new_loop, run, serve

__all__ = ["CannotStart", "Parts", "hygiene_of", "new_loop", "opened", "run", "serve"]
