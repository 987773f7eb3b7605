"""Number types against their definitions in float64, and against the libraries that own the formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.plugins.native.methods import microscaling, olive
from quantrecipe.plugins.native.methods.fp8 import fp8
from quantrecipe.plugins.native.methods.glm_int4 import glm_int4
from quantrecipe.plugins.native.methods.llm_int8 import decompose, llm_int8
from quantrecipe.plugins.native.methods.nf4 import Codebook, Nested, dynamic_map, nf4, table
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.recipe_methods import OliveMethod
from quantrecipe.schemes import QuantizationArgs
from tests.reference import number_types as reference

F32 = Storage(torch.float32, torch.float32)
BF16 = Storage(torch.bfloat16, torch.bfloat16)


def random_weight(rows: int = 24, columns: int = 128, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


def test_nf4_is_the_papers_quantiles() -> None:
    assert np.allclose(table("nf4").numpy(), reference.nf4_table(), atol=2e-7)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("size", [32, 64])
def test_codebooks_round_to_the_nearest_of_the_table(kind: str, size: int) -> None:
    w = random_weight()
    found = nf4(w, QuantizationArgs(num_bits=4, type=kind, group_size=size))  # type: ignore[arg-type]
    want = reference.blockwise(w.numpy(), table(kind).double().numpy(), size)
    assert np.allclose(found.served(F32, torch.float32).numpy(), want, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_are_bitsandbytes_own(kind: str, dtype: torch.dtype) -> None:
    bitsandbytes: Any = pytest.importorskip("bitsandbytes.functional")
    w = (random_weight(64, 256) * 0.05).to(dtype)
    args = QuantizationArgs(num_bits=4, type=kind, group_size=64)  # type: ignore[arg-type]
    found = nf4(w.float(), args, dtype)
    packed, state = bitsandbytes.quantize_4bit(w, blocksize=64, quant_type=kind)
    flat = found.codes.flatten()
    assert torch.equal((flat[::2] << 4) | flat[1::2], packed.flatten())
    assert torch.equal(found.absmax, state.absmax)  # type: ignore[arg-type]
    assert torch.equal(found.served(F32, dtype), bitsandbytes.dequantize_4bit(packed, state))


def test_double_quantization_is_within_half_a_step_of_the_constants() -> None:
    w = random_weight(256, 256)
    args = QuantizationArgs.model_validate(
        {"num_bits": 4, "type": "nf4", "group_size": 64, "scale": {"num_bits": 8, "group_size": 256}}
    )
    absmax = nf4(w, args.model_copy(update={"scale": None})).absmax
    nested = nf4(w, args).absmax
    assert isinstance(nested, Nested) and isinstance(absmax, torch.Tensor)
    largest = (absmax - absmax.mean()).abs().view(-1, 256).amax(-1).repeat_interleave(256)
    widest = float(dynamic_map().diff().max())
    assert bool(((nested.values() - absmax).abs() <= largest * widest / 2 + 1e-6).all())
    normed = (absmax - absmax.mean()) / largest
    want = reference.nearest(normed.double().numpy(), dynamic_map().double().numpy())
    got = dynamic_map()[nested.codes.long()].double().numpy()
    assert np.abs(np.abs(got - normed.numpy()) - np.abs(want - normed.numpy())).max() < 1e-6


def test_the_dynamic_type_is_bitsandbytes_own() -> None:
    bitsandbytes: Any = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(dynamic_map(), bitsandbytes.create_dynamic_map())
    for kind in ("nf4", "fp4"):
        assert torch.equal(table(kind), bitsandbytes.get_4bit_type(kind, device="cpu"))


@pytest.mark.parametrize(("kind", "sizes"), [("float", (4, 3, 448.0)), ("e5m2", (5, 2, 57344.0))])
@pytest.mark.parametrize(
    "span", [{"strategy": "tensor"}, {"strategy": "channel"}, {"group_size": 32},
             {"strategy": "block", "block_structure": [16, 48]}]
)  # fmt: skip
def test_fp8_rounds_to_the_nearest_number(kind: str, sizes: tuple[int, int, float], span: dict[str, Any]) -> None:
    w = random_weight()
    args = QuantizationArgs.model_validate({"num_bits": 8, "type": kind, **span})
    found = fp8(w, args, F32)
    numbers = reference.float_numbers(*sizes)
    height, width = args.block_structure or {"tensor": (24, 128), "channel": (1, 128)}.get(args.strategy, (1, 32))
    want = np.empty(w.shape)
    for top in range(0, 24, height):
        for left in range(0, 128, width):
            tile = w[top : top + height, left : left + width].double().numpy()
            scale = np.abs(tile).max() / sizes[2]
            want[top : top + height, left : left + width] = reference.nearest(tile / scale, numbers) * scale
    assert np.allclose(found.served(F32, torch.float32).numpy(), want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [16, 32])
def test_fp4_groups_are_the_librarys(size: int) -> None:
    from compressed_tensors.quantization import QuantizationArgs as LibraryArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    w = random_weight()
    found = microscaling.fp4_scaled(w, QuantizationArgs(num_bits=4, type="float", group_size=size))
    groups = w.view(24, -1, size)
    nv = size == 16
    args = LibraryArgs(
        num_bits=4, type="float", group_size=size, strategy="tensor_group" if nv else "group",
        scale_dtype=torch.float8_e4m3fn if nv else torch.uint8,
    )  # fmt: skip
    whole = generate_gparam(w.min(), w.max()) if nv else None
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=whole)
    want = fake_quantize(w, scale, zero.float(), args, global_scale=whole)
    assert torch.equal(found.served(F32, torch.bfloat16), want.to(torch.bfloat16))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-120, 120, width=32), min_size=8, max_size=8))
def test_olive_pairs_are_the_papers(values: list[float]) -> None:
    x = torch.tensor([values])
    found = olive.nearest(x)
    assert np.array_equal(found.numpy(), reference.olive_pairs(x.numpy()))
    assert torch.equal(olive.decode(olive.encode(found)).float(), found)


def test_olive_keeps_an_outlier_that_integers_lose() -> None:
    w = random_weight()
    w[:, 10] *= 12
    args = QuantizationArgs(num_bits=4, strategy="channel")
    found = olive.olive(w, args, F32, OliveMethod(name="olive")).served(F32, torch.float32)
    plain = glm_int4(w, args, F32).served(F32, torch.float32)
    assert (w - found).norm() < 0.6 * (w - plain).norm()
    far = w[:, 10].abs() > 3 * torch.cat([w[:, :10], w[:, 11:]], 1).abs().amax(1)
    assert int(far.sum()) > 10
    assert bool((found[far, 11] == 0).all())  # the victims


def test_glm_takes_absmax_over_seven() -> None:
    w = random_weight()
    found = glm_int4(w, QuantizationArgs(num_bits=4, strategy="channel"), F32)
    scale = np.abs(w.double().numpy()).max(1, keepdims=True) / 7
    assert np.allclose(
        found.served(F32, torch.float32).numpy(), np.round(w.double().numpy() / scale) * scale, atol=1e-6
    )


def test_llm_int8_rows_are_bitsandbytes_own() -> None:
    bitsandbytes: Any = pytest.importorskip("bitsandbytes.functional")
    w = random_weight().half()
    found = llm_int8(w.float(), QuantizationArgs(num_bits=8, strategy="channel"))
    codes, absmax, _ = bitsandbytes.int8_vectorwise_quant(w)
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.absmax, absmax)
    assert torch.allclose(found.served(F32, torch.float32), bitsandbytes.int8_vectorwise_dequant(codes, absmax))


def test_decomposition_is_equation_8() -> None:
    """C = X_O W_O + s_x (X_int8 W_int8): outlier features exactly, the others by vector-wise int8 of what is left."""
    x = random_weight(10, 64, seed=3)
    x[4, 7], x[2, 30] = 9.0, -6.5
    found = decompose(x.view(2, 5, 64), 6.0).view(10, 64).double().numpy()
    outliers = np.abs(x.numpy()).max(0) >= 6.0
    rest = np.where(np.abs(x.numpy()) >= 6.0, 0, x.double().numpy())
    scale = np.abs(rest).max(1, keepdims=True) / 127
    want = np.where(outliers, x.double().numpy(), np.round(rest / scale) * scale)
    assert outliers.sum() == 2
    assert np.allclose(found, want, atol=1e-6)


def test_a_codebook_says_its_bytes() -> None:
    w = random_weight(64, 256)
    plain = nf4(w, QuantizationArgs(num_bits=4, type="nf4", group_size=64))
    assert isinstance(plain, Codebook)
    assert plain.nbytes == 64 * 256 // 2 + 4 * 64 * 256 // 64
