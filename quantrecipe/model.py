"""What the advisor knows of a model: its exact parameter groups, its matrices and the geometry of its KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

GroupName = Literal["embeddings", "attention", "mlp", "experts", "router", "norms", "head"]
GROUPS: tuple[GroupName, ...] = ("embeddings", "attention", "mlp", "experts", "router", "norms", "head")
Attention = Literal["mha", "gqa", "mqa", "mla"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """``count`` equal weights of [rows N = outputs, columns K = inputs], such as the q_proj of every layer.

    name: pattern of the module's name; ``{i}`` stands for the layer and ``{e}`` for the expert.
    quantizable: a linear layer that schemes apply to; embeddings, routers and the head stay as they are.
    bias: whether each has a vector of N beside it.
    """

    group: GroupName
    name: str
    rows: int
    columns: int
    count: int = 1
    quantizable: bool = True
    bias: bool = False

    @property
    def elements(self) -> int:
        """Weights of all ``count`` matrices, biases not among them."""
        return self.rows * self.columns * self.count

    @property
    def parameters(self) -> int:
        """Weights and biases of all ``count`` matrices."""
        return self.elements + (self.rows * self.count if self.bias else 0)


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """What one token leaves in the cache: ``layers`` layers of ``width`` numbers, keys and values together.

    heads: keys and values (or latents) with a scale of their own where the cache is quantized, a layer.
    window: tokens that ``windowed_layers`` of the layers keep; the rest keep all.
    shard_heads: heads that tensor parallelism can split; a latent (MLA) is copied to every device: 1.
    """

    kind: Attention
    layers: int
    width: int
    heads: int
    shard_heads: int
    window: int | None = None
    windowed_layers: int = 0

    def kept_tokens(self, context: int) -> int:
        """Tokens kept at this context, summed over the layers."""
        short = min(context, self.window) if self.window else context
        return self.windowed_layers * short + (self.layers - self.windowed_layers) * context


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. ``parameters`` counts tied tensors once; ``context`` is the longest it was made for, in tokens.

    published: the count that its authors print, where they do. hub_id: where its weights are, or a folder.
    active_experts: experts that one token visits. source: where the dimensions come from.
    training_tokens: tokens that it was trained on, where published. tokenizer: a name; "" = nobody else's.
    """

    id: str
    family: str
    hub_id: str | None
    matrices: tuple[Matrix, ...]
    norm_parameters: int
    kv: KvGeometry
    hidden: int
    layers: int
    heads: int
    vocab: int
    context: int
    intermediate: int
    tied: bool
    gated: bool = True
    plain_linear: bool = True
    experts: int = 0
    active_experts: int = 0
    training_tokens: float | None = None
    published: int | None = None
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    activation: str | None = None
    source: str = ""
    local: bool = False
    tokenizer: str = ""

    @property
    def parameters(self) -> int:
        """Every parameter, tied tensors once."""
        return sum(matrix.parameters for matrix in self.matrices) + self.norm_parameters

    @property
    def groups(self) -> dict[str, int]:
        """Parameters by group, biases with their matrix; a tied head counts nothing."""
        totals: dict[str, int] = dict.fromkeys(GROUPS, 0)
        for matrix in self.matrices:
            totals[matrix.group] += matrix.parameters
        totals["norms"] += self.norm_parameters
        return {name: total for name, total in totals.items() if total}

    @property
    def is_moe(self) -> bool:
        """Whether tokens are routed to experts."""
        return self.experts > 0

    @property
    def head_parameters(self) -> int:
        """Elements of the output head's matrix, whether tied or not."""
        return self.vocab * next(m.columns for m in self.matrices if m.group == "embeddings")

    def quantizable(self) -> Iterator[Matrix]:
        """The linear layers that a scheme applies to."""
        return (matrix for matrix in self.matrices if matrix.quantizable)

    @property
    def quantizable_parameters(self) -> int:
        """Weights that a scheme applies to."""
        return sum(matrix.elements for matrix in self.quantizable())
