"""Which shards a straight run has written and which matrices lie in them whole: a killed one goes on behind them.

A shard is flushed before its line is. Its content is not hashed again when a run goes on (that would read all of it):
verifying compares every weight's digest, and every other tensor with the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from quantrecipe.modeling import files
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.writer import Shard, part_name
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.scratch import check_facts


class ShardLog:
    """The journal of a straight run. scratch: None = nothing is kept. records: by name, of what is done."""

    def __init__(self, scratch: Path | None, output: Path, facts: Mapping[str, str]) -> None:
        self._output = output
        self._journal = None if scratch is None else Journal(files.make_folder(scratch))
        self.shards: list[Shard] = []
        self.records: dict[str, LayerRecord] = {}
        if self._journal is not None:
            check_facts(self._journal, facts)
            self._read(self._journal)
        self._clear()

    def _read(self, journal: Journal) -> None:
        """Believe the shards up to the first that is missing, and the matrices that lie in them whole."""
        for line in journal.of("shard"):
            shard = Shard(tuple(line["names"]), line["bytes"])
            if line["index"] != len(self.shards) or not self._is_there(line["index"], line["file_bytes"]):
                break
            self.shards.append(shard)
        for line in journal.of("matrices"):
            if line["shards"] <= len(self.shards):
                self.records |= {record["name"]: LayerRecord(**record) for record in line["records"]}

    def _is_there(self, index: int, size: int) -> bool:
        """Whether the shard lies there; one that has its final name already gets its first one again."""
        part = self._output / part_name(index)
        for final in self._output.glob(f"model-{index + 1:05d}-of-*.safetensors"):
            files.rename(final, part)
        if index == 0 and (self._output / "model.safetensors").is_file():
            files.rename(self._output / "model.safetensors", part)
        return part.is_file() and part.stat().st_size == size

    def _clear(self) -> None:
        """Leave nothing in the output but the shards that count."""
        kept = {part_name(index) for index in range(len(self.shards))}
        for path in self._output.iterdir():
            if path.name not in kept:
                files.remove(path)

    def add_shard(self, index: int, shard: Shard) -> None:
        """A shard is written and flushed."""
        if self._journal is not None:
            size = (self._output / part_name(index)).stat().st_size
            files.fsync(self._output)
            self._journal.add("shard", index=index, names=shard.names, bytes=shard.nbytes, file_bytes=size)

    def add_matrices(self, shards: int, records: Iterable[LayerRecord]) -> None:
        """These matrices lie whole in the first ``shards`` shards."""
        if self._journal is not None:
            self._journal.add("matrices", shards=shards, records=[asdict(record) for record in records])

    def close(self) -> None:
        """Let the journal go."""
        if self._journal is not None:
            self._journal.close()
