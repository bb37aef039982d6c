"""Does this bucket keep the promises that the log rests on? Asked at pod start and by `mailpod bucket check`.

The questions are STORAGE's: a create-only PUT that is honoured in sequence and in a race, an overwrite that never lets a create in and
never makes an object vanish for a reader, and reads and listings that see what was just written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mailpod.errors import CONDITIONAL_WRITES_REFUSED, ObjectNotFound, StoreUnavailable
from mailpod.ports import Entropy, ObjectStore, PutOutcome

RACERS: Final = 4  # writers at once on one key; a store that checks and then writes lets two of them win
ROUNDS: Final = 2  # races; moto let two writers win one race in 260, real stores that fail do so at once
GOOD_STORES: Final = "AWS S3, Cloudflare R2, Ceph RGW, MinIO and SeaweedFS 4.17 or newer do it right"


class Finding(NamedTuple):
    """One question and its answer."""

    check: str  # kebab-case name
    passed: bool
    detail: str  # what the store did; for a failure also who does it right
    fatal: bool = True  # False: worth knowing, mail is safe all the same


async def probe(objects: ObjectStore, entropy: Entropy, prefix: str) -> list[Finding]:
    """Ask everything; leaves nothing behind. `prefix` is the fleet's own, so that narrowed credentials suffice.

    Raises `StoreUnavailable` when the store cannot be reached at all, which says nothing about its conformance.
    """
    folder = f"{prefix.strip('/')}/v1/probe/{entropy.bytes(8).hex()}/".lstrip("/")
    checks: tuple[tuple[str, Callable[[ObjectStore, str], Awaitable[str]]], ...] = (
        ("create-only-put", _create_only),
        ("racing-creates", _racing_creates),
        ("overwrite-against-create", _overwrite_against_create),
        ("read-after-write", _read_after_write),
        ("list-consistency", _list_consistency),
    )
    findings: list[Finding] = []
    try:
        for name, check in checks:
            try:
                wrong = await check(objects, folder)
            except StoreUnavailable:
                if any(not finding.passed for finding in findings):
                    return findings  # a definite failure stands, whatever did not answer after it
                raise
            findings.append(Finding(name, not wrong, f"{wrong}. {GOOD_STORES}." if wrong else "as it should be"))
    finally:
        await _clean(objects, folder)
    return findings


async def _clean(objects: ObjectStore, folder: str) -> None:
    try:
        await objects.delete([row.key for row in await objects.list(folder)])
    except StoreUnavailable:
        return  # a few bytes under v1/probe/ stay; the lifecycle of the account logs is not touched by them


async def _create_only(objects: ObjectStore, folder: str) -> str:
    key = f"{folder}sequential"
    try:
        first = await objects.create(key, b"first")
    except StoreUnavailable as error:
        if error.reason is not CONDITIONAL_WRITES_REFUSED:
            raise  # no answer says nothing
        return f"a PUT with If-None-Match: * was not accepted ({error.detail})"
    if first is not PutOutcome.CREATED:
        return "a PUT with If-None-Match: * on a free key was refused"
    if await objects.create(key, b"second") is not PutOutcome.EXISTS:
        return "a PUT with If-None-Match: * on a taken key was accepted: the store ignores the condition, and mail would be overwritten"
    if (await objects.get(key)).data != b"first":
        return "a refused PUT changed the object all the same"
    return ""


async def _racing_creates(objects: ObjectStore, folder: str) -> str:
    for turn in range(ROUNDS):
        key = f"{folder}race-{turn}"
        bodies = [b"racer-%d" % racer for racer in range(RACERS)]
        outcomes = await asyncio.gather(*(objects.create(key, body) for body in bodies))
        winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome is PutOutcome.CREATED]
        if len(winners) != 1:
            return f"of {RACERS} racing PUTs with If-None-Match: * on one free key {len(winners)} were accepted instead of exactly one"
        if (await objects.get(key)).data != winners[0]:
            return "after a race the object is not the winner's: a refused PUT was written later"
    return ""


async def _overwrite_against_create(objects: ObjectStore, folder: str) -> str:
    # Emptying overwrites entries in place while others create at the head; a store that deletes and then writes would lose a number.
    key = f"{folder}overwritten"
    await objects.create(key, b"0")
    wrong: list[str] = []
    done = asyncio.Event()

    async def overwrite() -> None:
        try:
            for turn in range(12):
                await objects.put(key, b"%d" % turn)
        finally:
            done.set()

    async def create() -> None:
        while not done.is_set():
            if await objects.create(key, b"intruder") is PutOutcome.CREATED:
                wrong.append("a PUT with If-None-Match: * won against an object that was being overwritten")
                return

    async def read() -> None:
        while not done.is_set():
            try:
                await objects.get(key)
            except ObjectNotFound:
                wrong.append("a GET was answered 404 while the object was being overwritten")
                return

    await asyncio.gather(overwrite(), create(), create(), read())
    if not wrong and (await objects.get(key)).data != b"11":
        wrong.append("after the last overwrite a GET brought something older")
    return wrong[0] if wrong else ""


async def _read_after_write(objects: ObjectStore, folder: str) -> str:
    for turn in range(4):
        key = f"{folder}fresh-{turn}"
        try:
            await objects.get(key)
        except ObjectNotFound:
            pass
        else:
            return "a GET of a key that was never written was answered"
        await objects.create(key, b"0123456789")
        try:
            # The 404 before must not be remembered (negative caching), and ranges must be exact.
            whole, part = await objects.get(key), await objects.get(key, 3, 4)
        except ObjectNotFound:
            return "a GET right after a PUT was answered 404"
        if whole.data != b"0123456789" or part.data != b"3456" or part.size != 10:
            return "a GET or a range GET right after a PUT brought other bytes"
    return ""


async def _list_consistency(objects: ObjectStore, folder: str) -> str:
    listing = f"{folder}listing/"
    names = [f"{listing}{number:04x}" for number in range(5)]
    for name in names:
        await objects.create(name, b"x")
        if name not in [row.key for row in await objects.list(listing)]:
            return "a LIST right after a PUT does not show the object"
    if [row.key for row in await objects.list(listing, limit=2)] != names[:2]:
        return "a LIST is not in key order"
    await objects.delete([names[0]])
    if [row.key for row in await objects.list(listing)] != names[1:]:
        return "a LIST right after a DELETE still shows the object"
    return ""
