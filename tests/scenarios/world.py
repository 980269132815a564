"""A small world for scenarios: real resolver, store and hygiene, scripted upstreams, a clock that is set by hand."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from keyserver import openpgp
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.listen.trust import Trust
from keyserver.model import (
    Absent,
    Answer,
    Certificate,
    Failed,
    Find,
    Found,
    How,
    Kind,
    Outcome,
    Raw,
    Selection,
    Source,
    UpstreamSpec,
    View,
    Voucher,
)
from keyserver.policy import Terms
from keyserver.query import parse
from keyserver.resolver.asked import Asked, MissLimit
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.gate import Gate
from keyserver.resolver.keeper import Keeper
from keyserver.resolver.resolver import Resolver, Settings
from keyserver.resolver.search import Searcher
from keyserver.store.sqlite import SqliteStore
from support.openpgp import CREATED, Made, make
from support.upstreams import Told

START = CREATED + 100_000_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`61m`, `25h`, `180d`, `0`."""
    return int(text) if text.isdigit() else int(text[:-1]) * UNITS[text[-1]]


class World:
    """Everything a scenario can touch. `await world.start()` before, `await world.stop()` after."""

    def __init__(self, directory: Path, *, deadline: float = 5.0, searches: int = 100, misses: int = 10_000) -> None:
        self.now = START
        self.path = directory / "keyserver.db"
        self.terms = Terms()
        self.upstreams: dict[str, Told] = {}
        self.certificates: dict[str, Made] = {}
        self.deadline = deadline
        self.searches = searches
        self.misses = misses
        self.changes = Changes()
        self.monotonic_offset = 0.0
        self.running = False

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.monotonic_offset

    def upstream(self, name: str, **options: object) -> Told:
        self.upstreams[name] = Told(UpstreamSpec(name, **options))  # type: ignore[arg-type]
        self.terms = replace(self.terms, upstreams={u.spec.name: u.spec for u in self.upstreams.values()})
        return self.upstreams[name]

    def certificate(self, name: str, *user_ids: str, **options: object) -> Made:
        self.certificates[name] = make(list(user_ids), seed=name, **options)  # type: ignore[arg-type]
        return self.certificates[name]

    def found(self, *names: str) -> Callable[[], Outcome]:
        raws = tuple(Raw(Kind.OPENPGP, self.certificates[n].octets) for n in names)
        return lambda: Found(raws)

    async def start(self) -> None:
        hygiene = hygiene_of()
        self.changes = Changes()
        self.store = SqliteStore(self.path, hygiene, self.changes, max_size=1 << 30)
        await self.store.open()
        self.gate = Gate(self.monotonic, lambda: 0.5)
        self.cleaner = Cleaner({kind: own.clean for kind, own in hygiene.items()})
        searcher = Searcher(
            store=self.store,
            upstreams=dict(self.upstreams),
            gate=self.gate,
            cleaner=self.cleaner,
            hygiene=hygiene,
            terms=self.terms,
            clock=lambda: self.now,
            monotonic=self.monotonic,
            deadline=self.deadline,
            max_certificate=1 << 20,
            via="here",
        )
        self.resolver = Resolver(
            store=self.store,
            searcher=searcher,
            terms=self.terms,
            hygiene=hygiene,
            asked=Asked(self.searches),
            misses=MissLimit(self.misses, Trust([ip_network("127.0.0.0/8")]), self.monotonic),
            clock=lambda: self.now,
            monotonic=self.monotonic,
            settings=Settings(),
        )
        self.keeper = Keeper(
            self.store,
            self.resolver,
            self.terms,
            clock=lambda: self.now,
            counting=lambda: self.monotonic_offset,
            purge_interval=900,
            prefetch=True,
        )
        await self.keeper._look_over()
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.resolver.close()
            await self.cleaner.close()
            await self.store.close()

    async def get(self, text: str, view: View | None = None, **options: object) -> Answer:
        return await self.resolver.lookup(parse(text), view or View(), **options)  # type: ignore[arg-type]

    def term(self, word: str) -> str:
        """`alice@example.org`, or `fpr(alice)`, `kid(alice)`, `sub(alice)`: of a certificate."""
        for kind in ("fpr", "kid", "sub"):
            if word.startswith(f"{kind}("):
                made = self.certificates[word[4:-1]]
                return {"fpr": made.fingerprint, "kid": made.key_id, "sub": made.subkeys[0].fingerprint}[kind]
        return word

    def named(self, answer: Answer) -> list[str]:
        by_fingerprint = {m.fingerprint: n for n, m in reversed(self.certificates.items())}
        return [by_fingerprint[a.certificate.fingerprint] for a in answer.certificates]

    async def mail(self, name: str, sender: str, *, held: bool = False, authenticated: bool = True) -> None:
        """A certificate as the mail flow would put it."""
        certificate = await self.cleaned(name)
        domain = sender.rpartition("@")[2]
        voucher = Voucher(sender, authenticated=authenticated, held=held, seen_at=self.now)
        find = Find(
            certificate, Source.MAILFLOW, domain, replace=False, vouchers=(voucher,), message_id=f"<1@{domain}>"
        )
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def approve(self, name: str, address: str, source: str | None = None) -> None:
        """Every entry of a certificate (or those of one source), for one address."""
        fingerprint = self.certificates[name].fingerprint
        for entry in (await self.store.certificate(fingerprint)).entries:
            if source in (None, entry.source):
                assert await self.store.approve(fingerprint, entry.source, entry.origin, address)

    async def keep(self, name: str) -> None:
        """A certificate as an import would put it."""
        find = Find(await self.cleaned(name), Source.LOCAL, "admin", replace=False)
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def cleaned(self, name: str) -> Certificate:
        (certificate,) = openpgp.clean(self.certificates[name].octets, self.now)
        assert isinstance(certificate, Certificate), certificate
        return certificate

    def outcome(self, words: list[str]) -> Callable[[], Outcome]:
        if words == ["absent"]:
            return lambda: Absent("it says so")
        if words == ["timeout"]:
            return lambda: Failed("no answer")
        if words == ["garbage"]:
            return lambda: Found((Raw(Kind.OPENPGP, b"\x99garbage"),))
        return self.found(*words)

    async def play(self, line: str) -> None:
        """One line of a scenario; an assertion fails where the world is not as it says."""
        words = shlex.split(line)
        what, rest = words[0], words[1:]
        plain = [w for w in rest if "=" not in w]
        options = dict(w.split("=", 1) for w in rest if "=" in w)
        match what:
            case "policy":
                if internal := options.pop("internal_domains", ""):
                    self.terms = replace(self.terms, internal_domains=tuple(internal.split(",")))
                self.terms = replace(self.terms, **{k: seconds(v) for k, v in options.items()})
                await self._again()
            case "upstream":
                spec: dict[str, object] = {}
                if "domains" in options:
                    spec["domains"] = tuple(options["domains"].split(","))
                if "priority" in options:
                    spec["priority"] = int(options["priority"])
                if "template" in plain[1:]:
                    spec["template"] = True
                if "ttl" in options:
                    spec["ttl"] = seconds(options["ttl"])
                self.upstream(plain[0], **spec)
                await self._again()
            case "remove":
                del self.upstreams[plain[0]]
                self.terms = replace(self.terms, upstreams={u.spec.name: u.spec for u in self.upstreams.values()})
                await self._again()
            case "certificate" if "bare" in options:  # another's, without its user IDs
                whole = self.certificates[options["bare"]]
                self.certificates[plain[0]] = replace(
                    whole,
                    octets=openpgp.cut(whole.octets, [c.text for c in openpgp.prove(whole.octets, self.now).claims]),
                )
            case "certificate":
                more: dict[str, object] = {k: int(v) if v.isdigit() else v for k, v in options.items()}
                if "revoked_user_ids" in options:
                    more["revoked_user_ids"] = options["revoked_user_ids"].split(",")
                self.certificate(plain[0], *plain[1:], **more)
            case "says":
                name, query, *words = plain
                self.upstreams[name].answers[self.term(query)] = self.outcome(words)
            case "always":
                name, *words = plain
                self.upstreams[name].answers.clear()
                self.upstreams[name].otherwise = self.outcome(words)
            case "get":
                arrow = plain.index("->")
                answer = await self.get(
                    self.term(plain[0]),
                    View(answer_mailflow="mailflow" in plain[1:arrow]),
                    looped="looped" in plain[1:arrow],
                )
                state, *names = plain[arrow + 1 :]
                expected_how = names.pop(0) if names and names[0] in How.__members__ else str(answer.how)
                got = (str(answer.state), str(answer.how), self.named(answer))
                story = "\n".join(f"{s.at:7.1f} {s.who} {s.what} {s.why}" for s in answer.steps)
                assert got == (state, expected_how, names), f"{line}\n got {got}: {answer.reason}\n{story}"
            case "asked":
                name, query, number = plain
                got_number = self.upstreams[name].asked.count(self.term(query))
                assert got_number == int(number), f"{line}\n got {got_number}"
            case "pass":
                self.now += seconds(plain[0])
                self.monotonic_offset += seconds(plain[0])
            case "clock":  # somebody sets it; no time passes
                self.now += (-1 if plain[0].startswith("-") else 1) * seconds(plain[0].lstrip("+-"))
                await self.keeper.poll()
            case "entries":
                page = await self.store.list(Selection(), 1000)
                assert len(page.entries) == int(plain[0]), f"{line}\n got {len(page.entries)}"
            case "purge_now":
                await self.keeper.purge_now()
            case "complains":
                assert (plain[0] if plain else "") in self.keeper.clockwatch.complaint, self.keeper.clockwatch.complaint
                assert bool(plain) == bool(self.keeper.clockwatch.complaint)
            case "delete":
                await self.store.delete(self.certificates[plain[0]].fingerprint, self.now)
            case "block":
                await self.store.block(self.certificates[plain[0]].fingerprint, self.now)
            case "unblock":
                await self.store.unblock(self.certificates[plain[0]].fingerprint, self.now)
            case "approve":
                await self.approve(*plain)
            case "keep":
                await self.keep(plain[0])
            case "mail":
                words = plain[2:]
                await self.mail(plain[0], plain[1], held="held" in words, authenticated="unauthenticated" not in words)
            case "rename":
                old = self.upstreams.pop(plain[0])
                self.upstreams[plain[1]] = replace(old, spec=replace(old.spec, name=plain[1]))
                self.terms = replace(self.terms, upstreams={u.spec.name: u.spec for u in self.upstreams.values()})
                await self._again()
            case "until":
                answer = await self.get(self.term(plain[0]))
                assert answer.until == self.now + seconds(plain[1]), f"{line}\n got {answer.until - self.now} s"
            case "shows":
                answer = await self.get(self.term(plain[0]), View(answer_mailflow="mailflow" in plain[1:]))
                ids = {u.text for a in answer.certificates for u in a.certificate.proof.user_ids}
                wanted = set(plain[plain.index("->") + 1 :])
                assert ids == wanted, f"{line}\n got {ids}"
            case "purge":
                await self.keeper.purge()
            case "prefetch":
                await self.keeper.prefetch()
            case "restart":
                await self._again()
            case _:
                raise ValueError(f"no such line: {line}")

    async def _again(self) -> None:
        await self.stop()
        await self.start()
