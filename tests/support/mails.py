"""Makes mail for tests: signed by openssl's smime and cms, with keys attached, in headers, in the text."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.x509 import Issued

HEAD = "To: me@here.example\nSubject: hello\nMessage-ID: <{id}>\nDate: Mon, 23 Nov 2026 10:00:00 +0000\n"


def head(sender: str, message_id: str = "1@mail.example", **more: str) -> bytes:
    """Header lines, LF, without the empty line; `more`: further fields, `_` for `-`."""
    fields = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in more.items())
    return f"From: {sender}\n{HEAD.format(id=message_id)}{fields}".encode()


def crlf(mail: bytes) -> bytes:
    """As it goes over the wire."""
    return mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def openssl(*words: str, stdin: bytes = b"") -> bytes:
    """What openssl says."""
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True)
    assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout


def signed(
    content: bytes,
    signers: Issued | Sequence[Issued],
    *options: str,
    sender: str | None = None,
    extra: Sequence[Issued] = (),
    tool: str = "cms",
    message_id: str = "1@mail.example",
    **more: str,
) -> bytes:
    """A mail signed by openssl: `multipart/signed`, or opaque with the option -nodetach.

    content: a MIME entity with its own headers. Without `sender` the signature stands alone as openssl wrote it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        words = [tool, "-sign", *([] if "-binary" in options else ["-crlfeol"] if tool == "cms" else [])]
        for number, signer in enumerate([signers] if isinstance(signers, Issued) else signers):
            (place / f"{number}.pem").write_bytes(signer.pem)
            (place / f"{number}.key").write_bytes(signer.key_pem)
            words += ["-signer", str(place / f"{number}.pem"), "-inkey", str(place / f"{number}.key")]
        if extra:
            (place / "extra.pem").write_bytes(b"".join(e.pem for e in extra))
            words += ["-certfile", str(place / "extra.pem")]
        made = openssl(*words, *options, stdin=content)
    return made if sender is None else head(sender, message_id, **more) + made


def text(body: str = "Hello.\n") -> bytes:
    """A MIME entity with text."""
    return f"Content-Type: text/plain; charset=utf-8\n\n{body}".encode()


def multipart(*parts: bytes, kind: str = "mixed", boundary: str = "b0undary", preamble: str = "") -> bytes:
    """A MIME entity of parts."""
    mark = f"--{boundary}".encode()
    inside = b"".join(mark + b"\n" + part + b"\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{preamble}'.encode() + inside + mark + b"--\n"


def attached_key(octets: bytes, kind: str = "application/pgp-keys") -> bytes:
    """A part with a key, base64."""
    body = base64.encodebytes(octets).decode()
    return (
        f'Content-Type: {kind}\nContent-Disposition: attachment; filename="key.asc"\n'
        f"Content-Transfer-Encoding: base64\n\n{body}"
    ).encode()


def autocrypt(address: str, octets: bytes, **more: str) -> str:
    """The value of an Autocrypt header, folded."""
    attributes = "".join(f"{name.replace('_', '-', 1) if not name.startswith('_') else name}={value}; "
                         for name, value in more.items())  # fmt: skip
    data = base64.b64encode(octets).decode()
    lines = "\n ".join(data[at : at + 72] for at in range(0, len(data), 72))
    return f"addr={address}; {attributes}keydata=\n {lines}"
