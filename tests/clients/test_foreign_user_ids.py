"""What gpg finds where it asks an upstream itself, it finds through the service, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.openpgp import armored, make
from support.running import Gpg, Service
from support.scripted import Scripted, key, reply

USER_IDS = {
    "comment@example.org": "Alice <comment@example.org> (work)",
    "zwnj@example.org": "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627 <zwnj@example.org>",
    "emoji@example.org": "Ann \U0001f468\u200d\U0001f469\u200d\U0001f467 <emoji@example.org>",
    "bidi@example.org": "Ann\u202e <bidi@example.org>",
    "taro..y.@docomo.ne.jp": "Taro <taro..y.@docomo.ne.jp>",
    "phil@xn--yp8ha.example": "Phil <phil@xn--yp8ha.example>",
    "a@r3---sn.x_y.example": "A <a@r3---sn.x_y.example>",
    "ann@corp": "Ann <ann@corp>",
}


async def test_gpg_locates_through_us_what_it_locates_directly(tmp_path: Path) -> None:
    made = {address: make([user_id]) for address, user_id in USER_IDS.items()}
    texts = {address: armored(one.octets) for address, one in made.items()}
    routes = {address: reply(200, text, len(text)) for address, text in texts.items()}  # and closed: gpg waits for it
    async with Scripted(routes | {"*": reply(404, "", 0)}) as upstream:
        listed = "".join(
            f'[[upstream]]\nname = "{name}"\nurl = "{upstream.url}"\ndomains = {domains}\n'
            for name, domains in {"anybody's": "[]", "ours": '["corp"]'}.items()
        )
        with Service(tmp_path, config=listed) as service:
            located: list[set[str]] = []
            for number, server in enumerate((upstream.url, f"hkp://127.0.0.1:{service.port()}")):
                with Gpg(tmp_path / f"g{number}") as gpg:
                    words = ("--keyserver", server, "--auto-key-locate", "clear,keyserver", "--locate-external-keys")
                    for address in made:
                        await asyncio.to_thread(gpg.run, *words, address, check=False)
                    found = gpg.fingerprints()
                    located.append({address for address, one in made.items() if one.fingerprint in found})
            directly, through_us = located
            assert directly <= through_us
            assert set(made) - directly <= {"taro..y.@docomo.ne.jp", "ann@corp"}, "what gpg itself takes for no address"
            for address in made:
                assert (await service.lookup(address))[0] == 200, address


@pytest.mark.parametrize("term", ["Alice <comment@example.org>", "mailto:comment@example.org"])
async def test_a_term_with_one_address_is_asked_for_as_that_address(tmp_path: Path, term: str) -> None:
    alice = make([USER_IDS["comment@example.org"]])
    routes = {"comment@example.org": key(alice.octets), "*": reply(404)}
    async with Scripted(routes) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            assert (await service.lookup(term))[0] == 200
            assert upstream.asked("comment@example.org") == 1
