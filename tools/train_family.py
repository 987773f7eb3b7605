"""The models that benchmarks/findings.py compares: two families, three sizes each, equally trained.

    python tools/fetch_texts.py TEXTS
    python tools/train_family.py TEXTS OUT

Every model sees 4.8 tokens for each parameter of its blocks, as the shipped demo model did (15.1 M tokens, 3.15 M
parameters), which is the largest of the Llama-like ones; all share its text, tokenizer, windows and schedule, so that
their perplexities can be compared. The OPT-like ones have ReLU, LayerNorm with bias and learned positions. A killed
run goes on; what is finished is passed over. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

TOKENS_PER_PARAMETER = 4.8
TRAINER = Path(__file__).with_name("train_demo_model.py")
#: architecture, hidden, layers, intermediate, heads, learning rate (higher for the narrower)
FAMILY: dict[str, tuple[str, int, int, int, int, float]] = {
    "llama-64": ("llama", 64, 2, 192, 2, 3e-3),
    "opt-64": ("opt", 64, 2, 256, 2, 3e-3),
    "llama-128": ("llama", 128, 2, 384, 2, 2e-3),
    "opt-128": ("opt", 128, 2, 512, 2, 2e-3),
    "opt-192": ("opt", 192, 2, 768, 3, 1.5e-3),
}


def command(name: str, texts: Path, out: Path) -> list[str]:
    """The trainer's call for one of FAMILY."""
    arch, hidden, layers, intermediate, heads, rate = FAMILY[name]
    sizes = {
        "arch": arch,
        "hidden": hidden,
        "layers": layers,
        "intermediate": intermediate,
        "heads": heads,
        "kv-heads": max(1, heads // 2),
        "lr": rate,
        "tokens-per-parameter": TOKENS_PER_PARAMETER,
    }
    options = [word for key, value in sizes.items() for word in (f"--{key}", str(value))]
    return [sys.executable, str(TRAINER), "--texts", str(texts), "--out", str(out / name), "--resume", *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, help="folder that fetch_texts.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=list(FAMILY), choices=FAMILY)
    parser.add_argument("--threads", default="1")
    args = parser.parse_args()
    for name in args.only:
        done = args.out / name / "finished"
        if not done.exists():
            subprocess.run([*command(name, args.texts, args.out), "--threads", args.threads], check=True)
            done.touch()


if __name__ == "__main__":
    main()
