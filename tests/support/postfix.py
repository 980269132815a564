"""A Postfix of its own: configuration, queue, log and mailboxes in one directory, free ports; never the system's.

Needs root, as Postfix does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from support.ports import free_port

INBOUND, OUTBOUND = "127.0.0.2", "127.0.0.3"  # two addresses of one mail server, one for each direction


class Postfix:
    """Listeners: `inbound` and `outbound` with the milter, `plain` without, `copy` with a copy of each mail by LMTP.

    me@here.example and beside@here.example each have a Maildir."""

    def __init__(self, milter: int, lmtp: int = 1, settings: Mapping[str, str] | None = None) -> None:
        self.milter, self.lmtp = milter, lmtp
        self.directory = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.directory.chmod(0o755)
        self.ports = {
            "inbound": (INBOUND, free_port(INBOUND)),
            "outbound": (OUTBOUND, free_port(OUTBOUND)),
            "plain": ("127.0.0.1", free_port()),
            "copy": ("127.0.0.1", free_port()),
        }
        self.log = self.directory / "mail.log"
        owner = pwd.getpwnam("postfix")
        for name in ("queue", "data", "mail"):
            (self.directory / name).mkdir()
        for name in ("data", "mail"):
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.directory / "queue"),
            "data_directory": str(self.directory / "data"),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(self.directory),
            "myhostname": "mx.here.example",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtpd_recipient_restrictions": "permit_mynetworks, reject",
            "disable_dns_lookups": "yes",
            "smtpd_peername_lookup": "no",
            "smtputf8_enable": "no",
            "alias_maps": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": "here.example",
            "virtual_mailbox_base": str(self.directory / "mail"),
            "virtual_mailbox_maps": "inline:{me@here.example=me/, beside@here.example=beside/}",
            "virtual_uid_maps": f"static:{owner.pw_uid}",
            "virtual_gid_maps": f"static:{owner.pw_gid}",
            "virtual_mailbox_limit": "0",
            "mailbox_size_limit": "0",
            "message_size_limit": "0",
            "queue_minfree": "0",
            "transport_maps": f"inline:{{copy.invalid=lmtp:inet:127.0.0.1:{lmtp}}}",
            "lmtp_send_xforward_command": "yes",
            "minimal_backoff_time": "1s",
            "queue_run_delay": "1s",
            "milter_default_action": "accept",
            "smtpd_milters": f"inet:127.0.0.1:{milter}",
            **(settings or {}),
        }
        (self.directory / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        (self.directory / "master.cf").write_text(self._master())

    def _master(self) -> str:
        def inet(name: str, *options: str) -> str:
            address, port = self.ports[name]
            return f"{address}:{port} inet n - n - - smtpd" + "".join(f"\n  -o {option}" for option in options)

        lines = [
            inet("inbound"),
            inet("outbound"),
            inet("plain", "smtpd_milters="),
            inet("copy", "smtpd_milters=", "cleanup_service_name=cleanup-copy"),
            "cleanup-copy unix n - n - 0 cleanup\n  -o always_bcc=all@copy.invalid",
            "postlog unix-dgram n - n - 1 postlogd",
            "qmgr unix n - n 300 1 qmgr",
        ]
        rest = (
            "pickup unix n - n 60 1 pickup|cleanup unix n - n - 0 cleanup|tlsmgr unix - - n 1000? 1 tlsmgr|"
            "rewrite unix - - n - - trivial-rewrite|bounce unix - - n - 0 bounce|defer unix - - n - 0 bounce|"
            "trace unix - - n - 0 bounce|verify unix - - n - 1 verify|flush unix n - n 1000? 0 flush|"
            "proxymap unix - - n - - proxymap|smtp unix - - n - - smtp|relay unix - - n - - smtp|"
            "showq unix n - n - - showq|error unix - - n - - error|retry unix - - n - - error|"
            "discard unix - - n - - discard|local unix - n n - - local|virtual unix - n n - - virtual|"
            "lmtp unix - - n - - lmtp|anvil unix - - n - 1 anvil|scache unix - - n - 1 scache"
        )
        return "\n".join([*lines, *rest.split("|")]) + "\n"

    def __enter__(self) -> Postfix:
        done = subprocess.run(["postfix", "-c", str(self.directory), "start"], capture_output=True, text=True)
        until = time.monotonic() + 20
        while done.returncode == 0 and time.monotonic() < until:
            try:
                for address in self.ports.values():
                    socket.create_connection(address, 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        log = self.log.read_text() if self.log.exists() else ""
        self.__exit__()
        raise AssertionError(f"postfix did not start: {done.stderr}\n{log}")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["postfix", "-c", str(self.directory), "stop"], capture_output=True, timeout=30)
        shutil.rmtree(self.directory, ignore_errors=True)

    def send(self, name: str, mail: bytes, sender: str, recipient: str = "me@here.example") -> float:
        """Deliver a mail (CRLF) to a listener; seconds from its last octet to "250"."""
        address, port = self.ports[name]
        with smtplib.SMTP(address, port, timeout=60) as client:
            client.ehlo("client.example")
            client.mail(sender)
            client.rcpt(recipient)
            client.putcmd("DATA")
            code, _ = client.getreply()
            assert code == 354
            stuffed = (b"\r\n" + mail).replace(b"\r\n.", b"\r\n..")[2:]
            client.send(stuffed)
            began = time.perf_counter()
            client.send(b".\r\n")
            code, reply = client.getreply()
            taken = time.perf_counter() - began
            assert code == 250, (code, reply)
        return taken

    def mailbox(self, name: str = "me") -> list[bytes]:
        """What was delivered, line ends as in files."""
        folder = self.directory / "mail" / name / "new"
        return [file.read_bytes() for file in sorted(folder.iterdir())] if folder.exists() else []

    def wait(self, count: int, name: str = "me", seconds: float = 30) -> list[bytes]:
        """As `mailbox`, as soon as so many have arrived."""
        until = time.monotonic() + seconds
        while len(self.mailbox(name)) < count:
            assert time.monotonic() < until, (len(self.mailbox(name)), self.log.read_text()[-4000:])
            time.sleep(0.05)
        return self.mailbox(name)

    def empty(self) -> None:
        """Forget what was delivered."""
        for folder in (self.directory / "mail").iterdir():
            shutil.rmtree(folder)

    def queue(self) -> str:
        """What still waits for its delivery."""
        return subprocess.run(["postqueue", "-c", str(self.directory), "-j"], capture_output=True, text=True).stdout
