"""The admin API asked everything that its own description allows, and much that it does not, by schemathesis."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import ROOT, Service
from support.scripted import NOT_FOUND, Scripted, key

SECONDS = 20
HOOKS = {"SCHEMATHESIS_HOOKS": "support.described", "PYTHONPATH": str(ROOT / "tests")}
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.soak
async def test_nothing_answers_500_and_every_answer_is_as_described(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"]).octets
    async with Scripted({"alice@example.org": key(alice), "*": NOT_FOUND}) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url])
        try:
            await asyncio.to_thread(service.start)
            await service.lookup("alice@example.org")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "schemathesis.cli", "run",
                f"http://127.0.0.1:{service.port('admin')}/api/v1/openapi.json",
                "--header", f"Authorization: Bearer {service.token}",
                "--checks", CHECKS, "--max-time", str(SECONDS), "--generation-database", "none", "--no-color",
                "--workers", "2",
                cwd=tmp_path, env={**os.environ, **HOOKS, "COLUMNS": "160"},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            try:
                said, _ = await asyncio.wait_for(process.communicate(), 10 * SECONDS)
            finally:
                if process.returncode is None:
                    process.kill()
            text = said.decode(errors="replace")
            assert process.returncode == 0, text[-6000:]
            assert "test cases" in text.lower(), text[-2000:]
            assert not [line for line in service.log if "unhandled error" in line]
        finally:
            service.kill()
