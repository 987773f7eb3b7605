"""Mutations of files: of their bytes, and of the JSON or YAML in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

#: Values that readers trip over.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 32, 2**31, 2**31 - 1, 2**32, 2**63, -(2**63), 2**64, 10**19, 10**40, 0.5,
    -0.0, 1e308, 1e999, float("nan"), "", " ", "\0", "a" * 5000, "..", "../x", "/etc/passwd", "model.safetensors",
    "re:(", "re:.*", "gptq", "awq", "bitsandbytes", "compressed-tensors", "\ud800", "é", "4", "NaN", [], {}, [[]],
    [0], [1, 2], [-1, -1], [2**40, 2**40], ["a"] * 3, {"": 0}, {"a": {"b": {}}}, {"weights": None},
)  # fmt: skip


#: Values in a mutated file: repeated lists of lists would fill any memory before a reader saw them.
MOST_PARTS = 200_000


def rng_for(name: str, seed: int, number: int) -> random.Random:
    """The same for the same target, seed and number."""
    return random.Random(f"{name} {seed} {number}")


def mutated(data: bytes, form: str, rng: random.Random) -> bytes:
    """form: ``json``, ``yaml``, ``safetensors`` or ``bytes``; one time in three the bytes alone are touched."""
    if form == "bytes" or rng.random() < 0.33:
        return _bytes(data, rng)
    try:
        return _FORMS[form](data, rng)
    except (ValueError, OverflowError, RecursionError, TypeError):
        return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(found) + 1) if rng.random() < 0.5 else rng.randrange(min(len(found), 400) + 1)
        _ACTS[rng.randrange(len(_ACTS))](found, place, rng)
    return bytes(found)


def _flip(found: bytearray, place: int, rng: random.Random) -> None:
    if place < len(found):
        found[place] ^= 1 << rng.randrange(8)


def _set(found: bytearray, place: int, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    found[place : place + size] = rng.choice((b"\0", b"\xff", b"{", b"9", b'"', rng.randbytes(1))) * size


def _cut(found: bytearray, place: int, rng: random.Random) -> None:
    del found[place : place + rng.choice((1, 2, 8, 64, len(found)))]


def _insert(found: bytearray, place: int, rng: random.Random) -> None:
    word = (
        b"{" * 2000,
        b"[" * 20000,
        b"9" * 5000,
        b"\0",
        b"\xef\xbb\xbf",
        b"&a *a ",
        b"!!python/name:os.system ",
        b"\n",
        b",",
    )
    found[place:place] = rng.choice(word)


_WORDS = (
    b"{" * 2000, b"[" * 20000, b"9" * 5000, b"\0", b"\xef\xbb\xbf", b"&a *a ", b"!!python/name:os.system ", b"\n",
    b",",
)  # fmt: skip


def _repeat(found: bytearray, place: int, rng: random.Random) -> None:
    part = bytes(found[place : place + rng.choice((4, 32, 256))])
    found[place:place] = part * rng.choice((1, 2, 30))


_ACTS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (_flip, _flip, _set, _cut, _insert, _repeat)


def change(data: Any, rng: random.Random) -> Any:
    """One to three changes somewhere in a tree of plain data."""
    holder = [data]
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(holder))
        parent, key = rng.choice(places)
        _change_at(parent, key, rng)
    return holder[0]


def _places(root: Any) -> list[tuple[Any, Any]]:
    found, stack = [], [root]
    while stack and len(found) < 3000:
        one = stack.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)):
            found.append((one, key))
            if isinstance(one[key], dict | list):
                stack.append(one[key])
    return found


def _change_at(parent: Any, key: Any, rng: random.Random) -> None:
    kind, value = rng.randrange(7), parent[key]
    if kind == 0 and (isinstance(parent, dict) or len(parent) > 1):
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[str(rng.choice((*list(parent), "x", "", "__metadata__")))] = parent.pop(key)
    elif kind == 2 and isinstance(value, int) and not isinstance(value, bool):
        parent[key] = value + rng.choice((-1, 1, 64, -64, 2**32, -value, -2 * value))
    elif kind == 3:
        for _ in range(rng.choice((5, 70, 900))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        parent[key] = value
    elif kind == 4 and isinstance(value, list):
        times = rng.choice((1, 1000))
        value.extend(value[:2] * (times if _parts(value[:2]) < MOST_PARTS // times else 1))
    else:
        parent[key] = rng.choice(NASTY)


def _parts(data: Any) -> int:
    """Values in a tree, counted up to the limit; a list that stands in it a thousand times counts so often."""
    count, stack = 0, [data]
    while stack and count < MOST_PARTS:
        one = stack.pop()
        count += 1
        if isinstance(one, dict | list):
            stack += one.values() if isinstance(one, dict) else one
    return count


def _json(data: bytes, rng: random.Random) -> bytes:
    text = json.dumps(change(json.loads(data), rng))
    if rng.random() < 0.1:  # a key twice
        text = text.replace('", "', '", "', 1).replace("{", '{"version": 1, "version": 2, ', 1)
    return text.encode("utf-8", errors="surrogatepass")


def _yaml(data: bytes, rng: random.Random) -> bytes:
    return yaml.safe_dump(change(yaml.safe_load(data), rng)).encode("utf-8", errors="surrogatepass")


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], rng)
    said = len(header) if rng.random() < 0.9 else rng.choice((0, 1, len(data), 2**31, 2**63, 2**64 - 1))
    return said.to_bytes(8, "little") + header + data[8 + size :]


_FORMS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json,
    "yaml": _yaml,
    "safetensors": _safetensors,
}
