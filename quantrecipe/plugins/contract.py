"""What a backend promises and what it is given: plain data, importing nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from quantrecipe.modeling.plan import Plan
    from quantrecipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can carry out; readable without its library.

    weight_bits maps a number type (``int``, ``float``, ``nf4``, ``fp4``) to the bits it can store; so does
    kv_cache_bits for keys and values. activation_strategies: how inputs are given scales, such as ``token``;
    type_methods: the methods that a number type takes, where not all of them.
    static_activations: also with scales found on calibration text. transforms, compensations, trainings: by
    name; a backend that knows trainings carries out nothing else.
    mixed: layers may get unlike schemes. successor: the backend that takes over where this one cannot run.
    streams: memory does not grow with depth. resumes: a killed run goes on where it was.
    """

    weight_bits: dict[str, tuple[int, ...]]
    activation_bits: tuple[int, ...]
    strategies: tuple[str, ...]
    methods: tuple[str, ...]
    formats: tuple[str, ...]
    devices: tuple[str, ...]
    asymmetric: bool = True
    embeddings: bool = False
    group_sizes: tuple[int, ...] | None = None
    activation_types: tuple[str, ...] = ("int",)
    activation_strategies: tuple[str, ...] = ("token",)
    static_activations: bool = False
    kv_cache_bits: dict[str, tuple[int, ...]] = field(default_factory=dict)
    type_methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    transforms: tuple[str, ...] = ()
    compensations: tuple[str, ...] = ()
    trainings: tuple[str, ...] = ()
    mixed: bool = True
    successor: str | None = None
    streams: bool = False
    resumes: bool = False

    def takes(self, method: str, number_type: str) -> bool:
        """Whether the method can choose numbers of that type."""
        return method in self.type_methods.get(number_type, self.methods)

    @property
    def default_format(self) -> str:
        """The format that ``format: auto`` stands for."""
        return self.formats[0]


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can run here; where not, what is missing and the remedy."""

    available: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    missing: str | None = None
    remedy: str | None = None


class Progress(Protocol):
    """Where a backend says how far it is. Units are what the stage counts (blocks, windows)."""

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """A stage begins; a stage under way ends."""

    def advance(self, amount: int = 1, **details: Any) -> None:
        """``amount`` units are done; details (``block="model.layers.3"``) are shown beside the bar."""

    def note(self, text: str) -> None:
        """One line that the user should see, such as a raised damping."""


@dataclass(frozen=True, slots=True)
class Job:
    """One order to a backend.

    model_path: folder with config.json, safetensors and tokenizer.
    output_path: an empty temporary folder to fill; the runner puts it in its place.
    plan: which module gets which scheme and method.
    calibration: int64 token ids [sequences, tokens] on the CPU, or None where no method needs them.
    witness: int64 token ids [sequences, tokens], whose logits prove that the checkpoint reads back the same.
    scratch: a folder that outlives a killed run, for what a resumed one goes on from; None = not resumable.
    spill: keep calibration activations in files of the scratch folder, one batch in memory at a time.
    trust_remote_code: the user allowed Python code that comes with the model.
    """

    recipe: Recipe
    model_path: Path
    output_path: Path
    plan: Plan
    calibration: torch.Tensor | None
    witness: torch.Tensor
    format: str
    device: str
    progress: Progress
    scratch: Path | None = None
    spill: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What became of one module.

    relative_error: ||W - W_q||_F / ||W||_F. output_error: ||X W^T - X W_q^T||_F / ||X W^T||_F over the
    calibration inputs, None where none were seen. digest: sha256 of the dequantized weight in the
    dtype that blocks compute in, as an independent loader must give it back. bytes: codes, scales and zero points.
    tokens: calibration tokens that its method saw, None where it looks at none.
    """

    name: str
    scheme: str
    method: str
    rows: int
    columns: int
    bytes: int
    relative_error: float
    output_error: float | None
    digest: str
    seconds: float
    note: str | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a backend leaves in the output folder, and what the in-memory model computed.

    witness_logits: [sequences, tokens, vocabulary] in fp32, None where the backend runs no forward pass.
    details: plain data, as JSON holds it: ``changed_parameters`` maps what is neither quantized nor as it was to its
    digest, ``adapter`` each tensor of a low-rank adapter.
    """

    path: Path
    format: str
    layers: tuple[LayerRecord, ...]
    witness_logits: torch.Tensor | None = None
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Estimates(Protocol):
    """A backend that can say how long a job will take."""

    def estimate(self, job: Job) -> float:
        """Seconds that ``quantize`` will take here; itself takes a few."""


class Backend(Protocol):
    """Who carries a recipe out."""

    name: str

    def capabilities(self) -> Capabilities:
        """What this backend can do; must not import its library."""

    def availability(self) -> Availability:
        """Whether it can run here."""

    def quantize(self, job: Job) -> Checkpoint:
        """Carry the job out. Raises BackendError."""

    def load(self, checkpoint: Path, device: str) -> torch.nn.Module:
        """The model in a folder that this backend wrote."""
