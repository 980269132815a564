"""What the mail flow counts, in the registry that it is handed."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from keyserver.mailflow.values import Way


class Counts:
    """Counters of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.mails = Counter("keyserver_mailflow_mails", "Mails that were read", ["way", "verdict"], registry=registry)
        self.certificates = Counter(
            "keyserver_mailflow_certificates", "Certificates in inbound mail", ["kind", "result"], registry=registry
        )
        self.shed = Counter("keyserver_mailflow_shed", "Mails not read: too much at once", ["way"], registry=registry)
        for way in Way:
            self.shed.labels(way.value)  # from 0: the first one is an increase, too
        self.changed = Counter(
            "keyserver_mailflow_changed", "Addresses that showed another certificate than before", registry=registry
        )
        self._waiting = Gauge(
            "keyserver_mailflow_waiting_bytes", "Octets of mail received and not yet read", registry=registry
        )

    def watch(self, waiting: Callable[[], float]) -> None:
        """Where the gauge reads its value."""
        self._waiting.set_function(waiting)
