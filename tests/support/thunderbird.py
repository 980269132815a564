"""A real Thunderbird without a screen, told what to do by Marionette: its own code, run where its windows run.

::

    with Thunderbird(tmp_path / "profile", {"mail.openpgp.keyserver_list": "hkp://127.0.0.1:11371"}) as program:
        program.run('return Services.appinfo.version')

A script is the body of an async function with `args`; what it returns comes back as JSON.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from support.daemons import program
from support.ports import free_port

QUIET = {
    "app.update.auto": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "mail.inappnotifications.enabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}
"""No window but the main one, and nobody asked on the internet."""


class Thunderbird:
    """One with a profile of its own."""

    patience = 60.0
    """Seconds for a start, and for each script."""

    def __init__(self, profile: Path, settings: Mapping[str, str | int | bool], before: Sequence[str] = ()) -> None:
        """settings: by the names of the Config Editor. before: what the command begins with, such as xvfb-run."""
        self.profile = profile
        self.port = free_port()
        self.log = profile / "log"
        self._headless = [] if before else ["--headless"]
        self._before = list(before)
        self._closing = contextlib.ExitStack()
        profile.mkdir(parents=True)
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in {**QUIET, "marionette.port": self.port, **settings}.items()
        ]
        (profile / "user.js").write_text("".join(lines))

    def __enter__(self) -> Self:
        command = [
            *self._before,
            program("thunderbird"),
            *self._headless,
            "--no-remote",
            "--profile",
            str(self.profile),
        ]
        command += ["--marionette", "--remote-allow-system-access"]
        with self.log.open("w") as said:
            self._process = subprocess.Popen(
                command, stdout=said, stderr=said, env={"HOME": str(self.profile), "PATH": "/usr/bin:/bin"}
            )
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def run(self, script: str, *args: Any) -> Any:
        """Run the body of an async function; what it returns. AssertionError where it throws."""
        whole = (
            "const [args, done] = [arguments[0], arguments[arguments.length - 1]];"
            f"(async () => {{ {script} }})().then(found => done({{found}}), problem => done({{problem: String("
            "problem?.stack ? problem + '\\n' + problem.stack : JSON.stringify(problem) ?? problem)}));"
        )
        sent = {"script": whole, "args": [list(args)], "newSandbox": True, "sandbox": "system"}
        answer = self.tell("WebDriver:ExecuteAsyncScript", sent)["value"]
        assert "problem" not in answer, answer["problem"]
        return answer.get("found")

    def tell(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """One command of Marionette's, and what comes back."""
        self._last += 1
        body = json.dumps([0, self._last, command, parameters]).encode()
        self._stream.write(b"%d:%b" % (len(body), body))
        self._stream.flush()
        _, number, problem, result = self._message()
        assert number == self._last and problem is None, (command, problem)
        return result

    def _connect(self) -> None:
        until = time.monotonic() + self.patience
        while True:
            try:
                connection = self._closing.enter_context(socket.create_connection(("127.0.0.1", self.port), 5))
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until, self.log.read_text()
                time.sleep(0.1)
        connection.settimeout(self.patience + 5)
        self._stream = self._closing.enter_context(connection.makefile("rwb"))
        self._last = 0
        self._message()
        self.tell("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"unhandledPromptBehavior": "ignore"}}})
        self.tell("Marionette:SetContext", {"value": "chrome"})
        self.tell("WebDriver:SetTimeouts", {"script": int(self.patience * 1000)})

    def _message(self) -> Any:
        length = b""
        while (octet := self._stream.read(1)) != b":":
            assert octet, self.log.read_text()
            length += octet
        return json.loads(self._stream.read(int(length)))
