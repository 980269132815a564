"""A small world for scenarios: the service's own parts, scripted upstreams, clocks that are set by hand."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keyserver import openpgp
from keyserver.app import opened
from keyserver.app.rules import KINDS
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.domains import DomainRule, DomainRules
from keyserver.faces.http.replies import MAX_AGE
from keyserver.model import (
    Absent,
    Answer,
    Certificate,
    Failed,
    Find,
    Found,
    How,
    Kind,
    OnChange,
    Outcome,
    Raw,
    Source,
    State,
    UpstreamSpec,
    View,
    Voucher,
)
from keyserver.policy import Terms
from keyserver.query import parse
from keyserver.store.history import Event, What
from keyserver.upstreams.base import Upstream
from scenarios.front import REPORTED, front_before
from support.listed import listed
from support.openpgp import CREATED, Made, make
from support.upstreams import Told

START = CREATED + 100_000_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`61m`, `25h`, `180d`, `0`."""
    return int(text) if text.isdigit() else int(text[:-1]) * UNITS[text[-1]]


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer. `left`: seconds for which it is good, as far as the one who asked is told. `story`: how it came."""

    state: State
    how: How
    certificates: Sequence[Certificate]
    left: int | None
    story: str = ""


def view_of(answer_mailflow: bool) -> View:
    """The default view, or another that answers mailflow entries too."""
    return View("mailflow", answer_mailflow=True) if answer_mailflow else View()


class World:
    """Everything a scenario can touch. `await world.start()` before, `await world.stop()` after."""

    def __init__(self, directory: Path, *, max_size: str = "1 GiB", apart: bool = False) -> None:
        self.now = START
        self.apart = apart
        """Questions go through a front, which asks the core where its memory does not answer."""
        self.path = directory / "keyserver.db"
        self.max_size = max_size
        self.terms = Terms()
        self.upstreams: dict[str, Told] = {}
        self.certificates: dict[str, Made] = {}
        self.gateways: dict[str, str] = {}
        """Domain -> the certificate that is named for its gateway."""
        self.domain_authority = False
        self.view_on_change = ""
        """`on_change` of the view that answers mailflow entries."""
        self.handing: bool | None = None
        """Is there a view `gateway` that hands such certificates out, and may it answer mailflow entries?"""
        self.monotonic_offset = 0.0
        self.open = AsyncExitStack()

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

    def config(self) -> Config:
        """The configuration that says what `terms` says."""
        terms = self.terms
        upstreams = [
            {
                "name": spec.name,
                "url": f"hkp://{'{domain}' if spec.template else 'keys.example.org'}",
                "priority": spec.priority,
                "domains": list(spec.domains),
                "timeout": f"{spec.timeout:g}s",
                "ttl": f"{spec.ttl}s" if spec.ttl else "",
                "on_change": spec.on_change or "",
            }
            for spec in terms.upstreams.values()
        ]
        cache = {
            "database": f"sqlite:///{self.path}",
            "max_size": self.max_size,
            "ttl": f"{terms.ttl}s",
            "negative_ttl": f"{terms.negative_ttl}s",
            "serve_stale": f"{terms.serve_stale}s",
        }
        listening: dict[str, Any] = {
            "hkp": {"listen": "127.0.0.1:0"},
            "view": [
                {
                    "name": "mailflow",
                    "hkp_listen": "127.0.0.1:0",
                    "answer_mailflow": True,
                    "on_change": self.view_on_change,
                }
            ],
        }
        if self.handing is not None:
            view = {"name": "gateway", "hkp_listen": "127.0.0.1:0", "answer_mailflow": self.handing}
            listening["view"].append({**view, "domain_certificates": True})
        gateways = [
            {"domain": domain, "fingerprint": self.certificates[name].fingerprint}
            for domain, name in self.gateways.items()
        ]
        return Config.model_validate(
            {
                "server": {"workers": int(self.apart)},
                **listening,
                "ldap": {"listen": []},
                "admin": {"listen": ""},
                "cache": cache,
                "policy": {
                    "internal_domains": list(terms.internal_domains),
                    "domain_authority": self.domain_authority,
                    "on_change": terms.on_change,
                },
                "domain_certificate": gateways,
                "domain": [
                    {
                        "name": rule.name,
                        "upstreams": list(rule.upstreams),
                        "kinds": [name for name, kind in KINDS.items() if kind in rule.kinds],
                        "pinned": sorted(rule.pinned),
                        "require_chain": rule.require_chain,
                        "on_change": rule.on_change or "",
                    }
                    for rule in terms.domains
                ],
                "smime": {"trust_anchors": "none"},
                "upstream": upstreams,
            }
        )

    def scripted(self, section: UpstreamSection, spec: UpstreamSpec) -> Upstream:
        """An upstream that the service asks, with the spec that it has by the service's reading."""
        self.upstreams[section.name].spec = spec
        return self.upstreams[section.name]

    async def start(self) -> None:
        """The service as it is, but for its upstreams, its clocks and its listeners."""
        clocks = Clocks(lambda: self.now, self.monotonic, lambda: self.monotonic_offset)
        self.open = AsyncExitStack()
        parts = await self.open.enter_async_context(opened(self.config(), clocks, self.scripted))
        self.store, self.resolver, self.upkeep = parts.store, parts.resolver, parts.upkeep
        self.undoing, self.pausing = parts.operations.undoing, parts.operations.pausing
        self.service, self.verdicts = parts.operations.service, parts.verdicts
        await self.upkeep.begin()
        self.front = await self.open.enter_async_context(front_before(parts)) if self.apart else None

    async def stop(self) -> None:
        await self.open.aclose()

    async def get(self, text: str, view: View | None = None, **options: object) -> Answer:
        return await self.resolver.lookup(parse(text), view or View(), **options)  # type: ignore[arg-type]

    def term(self, word: str) -> str:
        """`alice@example.org`, or `fpr(alice)`, `kid(alice)`, `sub(alice)`: of a certificate."""
        for kind in ("fpr", "kid", "sub"):
            if word.startswith(f"{kind}("):
                made = self.certificates[word[4:-1]]
                return {"fpr": made.fingerprint, "kid": made.key_id, "sub": made.subkeys[0].fingerprint}[kind]
        return word

    async def seen(self, word: str, flags: Collection[str] = ()) -> Seen:
        """What is answered to a question, in the shape that this world has."""
        term, mailflow, looped = self.term(word), "mailflow" in flags, "looped" in flags
        if self.front is not None:
            reply = await self.front.ask(
                term, "mailflow" if mailflow else "default", looped=looped, once="once" in flags
            )
            return Seen(reply.state, reply.how, reply.certificates, reply.left)
        answer = await self.get(term, view_of(mailflow), looped=looped)
        certificates = tuple(a.certificate for a in answer.certificates)
        story = "\n".join(f"{s.at:7.1f} {s.who} {s.what} {s.why}" for s in answer.steps)
        return Seen(answer.state, answer.how, certificates, answer.until - self.now, f"{answer.reason}\n{story}")

    def named(self, answer: Answer) -> list[str]:
        return self.names(a.certificate for a in answer.certificates)

    def names(self, certificates: Iterable[Certificate]) -> list[str]:
        by_fingerprint = self.made
        return [by_fingerprint[c.fingerprint] for c in certificates]

    async def mail(self, name: str, sender: str, *, held: bool = False, authenticated: bool = True) -> None:
        """A certificate as the mail flow would put it."""
        certificate = await self.cleaned(name)
        domain = sender.rpartition("@")[2]
        voucher = Voucher(sender, authenticated=authenticated, held=held, seen_at=self.now)
        find = Find(certificate, Source.MAILFLOW, domain, replace=False, vouchers=(voucher,), detail=f"<1@{domain}>")
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

    async def replaced(self) -> list[Event]:
        """The events of another certificate than before, the first one first."""
        events = await self.store.history.since(0, 10_000)
        return [event for event in events if event.what is What.REPLACED]

    @property
    def made(self) -> dict[str, str]:
        """Fingerprint -> name."""
        return {made.fingerprint: name for name, made in reversed(self.certificates.items())}

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
                if change := options.pop("on_change", ""):
                    self.terms = replace(self.terms, on_change=OnChange(change))
                self.view_on_change = options.pop("view_on_change", self.view_on_change)
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
                if "on_change" in options:
                    spec["on_change"] = OnChange(options["on_change"])
                self.upstream(plain[0], **spec)
                await self._again()
            case "rule":  # for a domain
                rule = DomainRule(plain[0], on_change=OnChange.of(options.get("on_change", "")))
                self.terms = replace(self.terms, domains=DomainRules((*self.terms.domains, rule)))
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
                seen = await self.seen(plain[0], plain[1:arrow])
                state, *names = plain[arrow + 1 :]
                expected_how = names.pop(0) if names and names[0] in How.__members__ else str(seen.how)
                got = (str(seen.state), str(seen.how), self.names(seen.certificates))
                assert got == (state, expected_how, names), f"{line}\n got {got}: {seen.story}"
            case "asked":
                name, query, number = plain
                got_number = self.upstreams[name].asked.count(self.term(query))
                assert got_number == int(number), f"{line}\n got {got_number}"
            case "pass":
                self.now += seconds(plain[0])
                self.monotonic_offset += seconds(plain[0])
            case "clock":  # somebody sets it; no time passes
                self.now += (-1 if plain[0].startswith("-") else 1) * seconds(plain[0].lstrip("+-"))
                await self.upkeep.poll()
            case "entries":
                entries = await listed(self.store)
                assert len(entries) == int(plain[0]), f"{line}\n got {len(entries)}"
            case "held":  # what waits for an administrator
                assert (await self.store.stats()).held == int(plain[0]), line
            case "replaced":  # (old -> new) of every event, the first one first
                old_and_new = [
                    f"{self.made[str(e.facts['old'])]}>{self.made[e.fingerprint]}" for e in await self.replaced()
                ]
                assert old_and_new == plain, f"{line}\n got {old_and_new}"
            case "purge_now":
                await self.upkeep.purge_now()
            case "complains":
                assert (plain[0] if plain else "") in self.upkeep.clockwatch.complaint, self.upkeep.clockwatch.complaint
                assert bool(plain) == bool(self.upkeep.clockwatch.complaint)
            case "delete":
                fingerprint = self.certificates[plain[0]].fingerprint
                act = self.undoing.act() if "undoable" in plain[1:] else None
                await self.undoing.delete(fingerprint, act=act)
            case "undo":  # the latest
                number = 0
                if waiting := await self.store.undos(self.now):
                    number = (await self.undoing.undo(waiting[0].id)).restored
                assert number == int(plain[0]), f"{line}\n got {number}"
            case "pause":
                await self.pausing.pause(plain[0])
            case "resume":
                await self.pausing.resume(plain[0])
            case "told":  # how many addresses, fingerprints, key IDs
                (told,) = [row for row in self.pausing.told() if row.upstream == plain[0]]
                got_counts = [count.count for count in (told.addresses, told.fingerprints, told.key_ids)]
                assert got_counts == [int(word) for word in plain[1:]], f"{line}\n got {got_counts}"
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
                left, wanted = (await self.seen(plain[0])).left, seconds(plain[1])
                assert left == (min(wanted, MAX_AGE) if self.front else wanted), f"{line}\n got {left} s"
            case "shows":
                seen = await self.seen(plain[0], plain[1:])
                ids = {u.text for certificate in seen.certificates for u in certificate.proof.user_ids}
                user_ids = set(plain[plain.index("->") + 1 :])
                assert ids == user_ids, f"{line}\n got {ids}"
            case "purge":
                await self.upkeep.purge()
            case "prefetch":
                if self.front is not None:
                    await asyncio.sleep(REPORTED)
                await self.upkeep.prefetch()
            case "restart":
                await self._again()
            case _:
                raise ValueError(f"no such line: {line}")

    async def _again(self) -> None:
        await self.stop()
        await self.start()
