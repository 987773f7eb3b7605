"""The Hadamard rotation as a stage of the run; the work is done by the folder that weights are read from."""

from __future__ import annotations

from typing import Any

from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.stages import Block, Transform
from quantrecipe.plugins.native.transforms.rotated import RotatedFolder, rotated
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_transforms import HadamardTransform


def seen_rotated(skeleton: Skeleton, recipe: Recipe, trust_remote_code: bool) -> Skeleton:
    """The skeleton that the run works on: of the rotated model where the recipe asks for one, else the one given."""
    parts = [part for part in recipe.quantization.transforms if isinstance(part, HadamardTransform)]
    return Skeleton(rotated(skeleton, parts[0].seed), trust_remote_code) if parts else skeleton


def rewritten(skeleton: Skeleton) -> list[str]:
    """The parameters that a rotation changes; none in a skeleton that is not rotated."""
    if not isinstance(skeleton.folder, RotatedFolder):
        return []
    changed = set(skeleton.folder.changes)
    return [name for name, _, _ in skeleton.parameters_of("") if skeleton.stored_name(name) in changed]


class Hadamard(Transform):
    """Nothing is left to do block by block: what is read is rotated already."""

    name = "hadamard"

    def __init__(self, part: HadamardTransform) -> None:
        self.seed = part.seed

    def apply(self, block: Block) -> None:
        """Nothing."""

    def config(self) -> dict[str, Any]:
        """Nothing: the rotated folder's own config says that its head is no longer tied."""
        return {}
