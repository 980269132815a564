"""Types of keys that several sections have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from keyserver.config.kinds import File, Flag, Listen, Many, Network, Text, read_network
from keyserver.config.listener import Listener

Switch = Annotated[bool, Flag()]
PlainListener = Annotated[Listener | None, Listen(plain=True)]
OneListener = Annotated[Listener | None, Listen()]
Networks = Annotated[tuple[Network, ...], Many('networks such as "10.0.0.0/8" or "fc00::/7"', read_network)]
Certificates = Annotated[Path | None, File("a PEM file with a certificate chain")]
PrivateKey = Annotated[Path | None, File("a PEM file with the certificate's unencrypted private key")]
Title = Annotated[str, Text("a name of 1 to 64 printable characters, no slash", r"[^/]*[^/\s][^/]*", 64)]
