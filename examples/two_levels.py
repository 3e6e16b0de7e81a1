"""A model of two levels by the verbs of the command line: fitted, encoded, sampled, gapped, saved, loaded, reported, compared.

Model and guide are the declarations of ``examples/ladder.py``, of which the library has no line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import ppl_vae as pv
from ppl_vae import cli

MINE = "examples.ladder"  # a run names its classes by where they are imported from, and is opened if one trusts that
sys.path.insert(0, str(Path(__file__).parents[1]))


def verb(*words: str | Path | int) -> None:
    """Run a verb of the command line, and say which."""
    print("$ ppl-vae", *words)
    if cli.main([str(word) for word in words]):
        raise SystemExit("that did not work")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--limit", type=int, default=100, help="of the data whose best posterior is looked for")
    parser.add_argument("--out", type=Path, default=None, help="a folder for both runs; by default one that is deleted")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        ours, flat, trust = out / "ladder", out / "vae", ("--trust", MINE)
        how = ("--data", "digits", "--method.epochs", options.epochs, "--out")
        verb("fit", "--model", f"{MINE}.Ladder", "--guide", f"{MINE}.LadderGuide", *how, ours)
        verb("fit", "--model", "VAE", "--model.latent_dim", 4, *how, flat)
        verb("encode", ours, *trust, "--out", out / "codes.npz")
        with np.load(out / "codes.npz") as codes:
            print({name: codes[name].shape for name in codes if name.startswith("z")})
        verb("sample", ours, *trust, "--out", out / "new.png", "--means")
        gaps = ("--gaps", "--samples", 100, "--limit", options.limit)
        verb("evaluate", ours, *trust, *gaps, "--latents", "--save")
        verb("report", ours, *trust)
        verb("compare", ours, flat, *trust)
        fit = pv.load_run(ours, trust=[MINE])
        print(f"from a point of z2 alone: {tuple(fit.decode({'z2': [0.0, 1.0]}).shape)}")


if __name__ == "__main__":
    main()
