"""What is fuzzed: each target copies good files, has one of them mutated, and reads them as the commands do."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import INDEX, ModelFolder
from quantrecipe.modeling.journal import FILE, Journal, read_lines
from quantrecipe.runner.pipeline import run
from tests import families, foreign, runner_models

Mutate = Callable[[bytes, str], bytes]
Prepare = Callable[[Path, Path, random.Random, Mutate], None]


@dataclass(frozen=True, slots=True)
class Target:
    """share: of the inputs. prepare(seeds, place, rng, mutate): lays files out. read(place): as the commands do."""

    name: str
    share: int
    prepare: Prepare
    read: Callable[[Path], Any]


def make_seeds(root: Path, names: Iterable[str] = ()) -> None:
    """The good files of these targets, made once; results.json takes a run."""
    model = families.make_model("llama", root / "model")
    for kind in foreign.KINDS:
        foreign.convert(kind, model, root / kind)
        foreign.change_tensors(root / kind, _first_block_alone)
    tensors = load_file(model / "model.safetensors")
    sharded, stored = root / "sharded", sorted(tensors)
    shutil.copytree(model, sharded, ignore=shutil.ignore_patterns("*.safetensors"))
    halves = {"a.safetensors": stored[::2], "b.safetensors": stored[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, sharded / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (sharded / INDEX).write_text(json.dumps(index))
    _small_seeds(root)
    if "results.json" in names:
        place = runner_models.make_workplace(root / "run")
        shutil.copyfile(run(runner_models.recipe(place)).output / "results.json", root / "results.json")


def _first_block_alone(tensors: foreign.Tensors) -> None:
    for name in [name for name in tensors if ".layers." in name and ".layers.0." not in name]:
        del tensors[name]


def _small_seeds(root: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    (root / "recipes").mkdir()
    for path in examples.glob("*.yaml"):
        shutil.copyfile(path, root / "recipes" / path.name)
    record = {"outputs": {"model.safetensors": "0" * 64}, "weights": {"a": "0" * 64}, "weights_dtype": "float32"}
    (root / "provenance.json").write_text(json.dumps(record))
    journal = Journal(root)
    for index in range(5):
        journal.add("block", index=index, layers=[{"name": f"layer {index}", "bytes": 12}])
    journal.close()


def _folder(kinds: tuple[str, ...], file: str, form: str) -> Prepare:
    """Copies one of the folders, small files by value and weights by link, and mutates one file of it."""

    def prepare(seeds: Path, place: Path, rng: random.Random, mutate: Mutate) -> None:
        source = seeds / rng.choice(kinds)
        place.mkdir()
        for path in source.iterdir():
            if path.name == file:
                (place / file).write_bytes(mutate(path.read_bytes(), form))
            else:
                (place / path.name).hardlink_to(path)

    return prepare


def _recipe(seeds: Path, place: Path, rng: random.Random, mutate: Mutate) -> None:
    place.mkdir()
    source = rng.choice(sorted((seeds / "recipes").iterdir()))
    (place / "recipe.yaml").write_bytes(mutate(source.read_bytes(), "yaml"))


def _one_file(name: str, form: str) -> Prepare:
    def prepare(seeds: Path, place: Path, rng: random.Random, mutate: Mutate) -> None:
        place.mkdir()
        (place / name).write_bytes(mutate((seeds / name).read_bytes(), form))

    return prepare


def _journal(seeds: Path, place: Path, rng: random.Random, mutate: Mutate) -> None:
    """Damaged lines, and lines with other contents under a good checksum."""
    place.mkdir()
    raw = (seeds / FILE).read_bytes()
    if rng.random() < 0.5:
        (place / FILE).write_bytes(mutate(raw, "bytes"))
        return
    before, lines = "", []
    for line in raw.decode().splitlines():
        text = mutate(line.rpartition("\t")[0].encode(), "json").decode(errors="replace").replace("\n", " ")
        before = hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:16]
        lines.append(f"{text}\t{before}\n")
    (place / FILE).write_text("".join(lines), newline="")


def _read_journal(place: Path) -> None:
    before = len(read_lines(place))
    journal = Journal(place)
    journal.add("end")
    journal.close()
    assert len(read_lines(place)) == before + 1
    if before < 5:
        raise ModelError("some lines were dropped")


def _read_results(place: Path) -> None:
    from quantrecipe.runner.report.write import rerender

    rerender(place / "results.json")


def _read_model(place: Path) -> None:
    """As pre-flight and qadvise do: every header, every tensor, the shapes alone."""
    from quantrecipe.catalog.local import tensor_shapes

    folder = ModelFolder.open(place)
    for name in folder.names:
        folder.tensor(name)
    tensor_shapes(place)


def _read_shapes(place: Path) -> None:
    from quantrecipe.catalog.local import tensor_shapes

    tensor_shapes(place)


def _read_config(place: Path) -> None:
    from quantrecipe.catalog.local import from_path

    from_path(place)


def _read_quantized(place: Path) -> None:
    """As verify does, but for the architecture and other loaders."""
    from quantrecipe.runner.checks.layout import check_layout
    from quantrecipe.runner.checks.original import check_kept, check_original
    from quantrecipe.runner.checks.report import Integrity
    from quantrecipe.runner.checks.values import check_values

    stored, report = ModelFolder.open(place), Integrity(place)
    reader = check_layout(stored, report)
    if reader is not None:
        check_values(stored, reader, None, report, channels=True)
        original = ModelFolder.open(place.parent / "seeds" / "model")
        names = {name: name for name in original.names}
        check_original(stored, reader, original, names, report)
        check_kept(stored, reader, original, names, report)
    if report.faults:
        raise ModelError(report.faults[0])


def _read_recipe(place: Path) -> None:
    from quantrecipe.recipe_file import load_recipe

    load_recipe(place / "recipe.yaml")


def _read_provenance(place: Path) -> None:
    from quantrecipe.runner.checks.provenance import check_hashes, read_provenance
    from quantrecipe.runner.checks.report import Integrity

    report = Integrity(place)
    record = read_provenance(place, report)
    if record is not None:
        check_hashes(place, record, report)
    if report.faults:
        raise ModelError(report.faults[0])


QUANTIZED = tuple(foreign.KINDS)
_ALL = (
    Target("safetensors header", 30, _folder(("model",), "model.safetensors", "safetensors"), _read_model),
    Target("shapes of a header", 16, _folder(("model",), "model.safetensors", "safetensors"), _read_shapes),
    Target("index", 18, _folder(("sharded",), INDEX, "json"), _read_model),
    Target("config.json", 8, _folder(("model",), "config.json", "json"), _read_config),
    Target("quantization config", 3, _folder(QUANTIZED, "config.json", "json"), _read_quantized),
    Target("quantized tensors", 4, _folder(QUANTIZED, "model.safetensors", "safetensors"), _read_quantized),
    Target("journal", 6, _journal, _read_journal),
    Target("results.json", 1, _one_file("results.json", "json"), _read_results),
    Target("recipe", 6, _recipe, _read_recipe),
    Target("provenance", 8, _one_file("provenance.json", "json"), _read_provenance),
)
TARGETS = {target.name: target for target in _ALL}
