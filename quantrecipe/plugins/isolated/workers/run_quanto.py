"""int8 per channel and int4 in groups by optimum-quanto; only its own class reads the files."""

from __future__ import annotations

from typing import Any

from worker_io import Channel, Refused, dtype_named, main, the_one_scheme, witness


def avoid_crash() -> None:
    """On the CPU quanto hands some shapes to torch's packed int8 product that make it crash; the plain one serves."""
    import optimum.quanto.library.qbytes_mm as products

    products.qbytes_int8pack_mm = products.qbytes_mm


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load, quantize, save; then the witness."""
    from optimum.quanto import QuantizedModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    avoid_crash()
    channel.start("quantize with quanto")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype_named(job), local_files_only=True)
    made = QuantizedModelForCausalLM.quantize(model.to(job["device"]), weights=kind(job), exclude=job["kept"])
    _check_groups(made, job)
    made.save_pretrained(job["output"])
    AutoTokenizer.from_pretrained(job["model"], local_files_only=True).save_pretrained(job["output"])
    witness(job, made._wrapped)


def kind(job: dict[str, Any]) -> Any:
    """quanto's type for the recipe's scheme: qint8 is symmetric per row, qint4 has a shift and groups."""
    from optimum.quanto import qint4, qint8

    weights = the_one_scheme(job)["weights"]
    if weights["num_bits"] == 8 and weights["symmetric"] and weights["strategy"] == "channel":
        return qint8
    if weights["num_bits"] == 4 and not weights["symmetric"] and weights["strategy"] == "group":
        return qint4
    raise Refused("quanto has symmetric int8 a row and asymmetric int4 in groups", "use w8a16 or w4a16-g128-asym")


def _check_groups(model: Any, job: dict[str, Any]) -> None:
    """quanto picks the group size by itself; another than the recipe's is refused."""
    wanted = the_one_scheme(job)["weights"]["group_size"]
    for name in job["modules"]:
        found = model.get_submodule(name).weight_group_size
        if found != wanted:
            raise Refused(f"quanto groups {name} by {found}, the recipe by {wanted}", f"use group_size {found}")


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by quanto's own class."""
    from optimum.quanto import QuantizedModelForCausalLM

    avoid_crash()
    return QuantizedModelForCausalLM.from_pretrained(job["model"])._wrapped.to(job["device"])


if __name__ == "__main__":
    main(quantize, load)
