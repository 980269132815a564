"""A load of our own in a process of its own: one JSON object in, a line when it begins, one JSON object out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bench.setting import MODULE_PATH


class Child:
    """`python -m MODULE` under way."""

    def __init__(self, module: str, wanted: Mapping[str, Any], cpus: frozenset[int]) -> None:
        """Starts it, on the first of `cpus` where given; returns when it begins."""
        self._module = module
        pinned = ["/usr/bin/taskset", "-c", str(min(cpus))] if cpus else []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*pinned, sys.executable, "-m", module], stdin=pipe, stdout=pipe, env=MODULE_PATH, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def answer(self) -> dict[str, Any]:
        """What it saw, at its end. Raises RuntimeError when it broke."""
        text, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"{self._module} ended early")
        answer: dict[str, Any] = json.loads(text)
        return answer
