"""A clock that somebody sets, under the real service: a shim of a few lines between it and the system."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from support.mails import attached_key, crlf, head, multipart, text
from support.openpgp import make
from support.running import Service
from support.scripted import Scripted, key

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_OFFSET_FILE"), "r");
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (result == 0 && id == CLOCK_REALTIME) at->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
PEOPLE = [make([f"<p{n}@partner.example>"], seed=f"clock{n}", encryption=None) for n in range(10)]


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says by how many seconds the service's clock is off."""
    source, library, offset = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "offset"
    source.write_text(SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_OFFSET_FILE", str(offset))
    return offset


async def test_a_clock_that_jumps_ahead_for_three_seconds_deletes_nothing(shim: Path, tmp_path: Path) -> None:
    """Ten entries stay ten, six of a keyserver and four of mail; before, one was left."""
    settings = {"cache.purge_interval": '"1s"', "mailflow.authserv_id": '"mx"'}
    async with Scripted({p.fingerprint: key(p.octets) for p in PEOPLE}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            for person in PEOPLE[:6]:
                assert (await service.lookup(f"0x{person.fingerprint}"))[0] == 200
            for number, person in enumerate(PEOPLE[6:], 6):
                mail = head(
                    f"p{number}@partner.example", Authentication_Results="mx; dmarc=pass header.from=partner.example"
                )
                file = tmp_path / f"{number}.eml"
                file.write_bytes(crlf(mail + multipart(text(), attached_key(person.octets))))
                await asyncio.to_thread(service.cli, "harvest", str(file))
            assert len((await service.api("/api/v1/cache"))["entries"]) == 10
            shim.write_text(str(200 * 86400))
            await asyncio.sleep(3)
            assert (await service.api("/api/v1/cache?limit=1"))["entries"][0]["cached_at"] < time.time()
            shim.write_text("0")
            await asyncio.sleep(2)
            assert len((await service.api("/api/v1/cache"))["entries"]) == 10
            status, _, body = await service.get("/readyz")
            assert (status, b"jumped" in body) == (200, True), "it answers as well as ever, and says so"
            assert any("jumped 200 days ahead" in line for line in service.log)
            assert (await service.lookup(f"0x{PEOPLE[0].fingerprint}"))[1]["x-cache"] == "HIT"
            assert "purged 0" in await asyncio.to_thread(service.cli, "cache", "purge", "--expired")
            assert (await service.get("/readyz"))[2] == b"ok\n"
