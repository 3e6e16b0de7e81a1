"""``ppl-vae export``: a part of a run as a file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ppl_vae import runs
from ppl_vae.cli.output import done, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *, run: str, out: str, part: Literal["encoder", "decoder"], tolerance: float, device: str, trust: list[str], json: bool
) -> None:
    """Write the encoder or decoder of a run as ONNX (.onnx) or torch's .pt2, the transform inside, checked against the run.

    The encoder takes x in the units of the source and gives posterior means; the decoder takes these and gives means of x.
    """
    writer(out, ".onnx", ".pt2")
    fitted = runs.load_run(run, trust=trust, device=device)
    path = fitted.export(out, part=part, tolerance=tolerance)
    done({"out": str(path), "part": part, "bytes": Path(path).stat().st_size}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--out", type=str, required=True, help="the file: .onnx (extra `export`), or .pt2")
    what = "encoder: from x to posterior means; decoder: from codes to means of x"
    parser.add_argument("--part", type=Literal["encoder", "decoder"], default="encoder", help=what)
    what = "the most that the file's numbers may differ from the run's, relative to the largest of them or to 1"
    parser.add_argument("--tolerance", type=float, default=1e-5, help=what)
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the run may name")
