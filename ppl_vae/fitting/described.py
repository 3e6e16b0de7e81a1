"""What of a fit goes into a run folder: the texts that tell it, and the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_vae.fitting.fitted import Fit
from ppl_vae.storage import RunFolder
from ppl_vae.types import SCORES

__all__ = ["NOISE", "describe", "weights"]

NOISE = ("dequantize", "binarize")


def describe(fit: Fit, prints: Mapping[str, str] | None = None) -> dict[str, str]:
    """The texts of a run folder that tell what is fitted, by file; with the fingerprints of its splits these too."""
    parts: dict[str, Any] = {"model": fit.model, "guide": fit.guide, "method": fit.method, "data": fit.data}
    declared = {name: part.to_dict() for name, part in parts.items()}
    transform = {"dequantize": fit.transform.dequantize, "binarize": fit.transform.binarize}
    seen: dict[str, Any] = {"spec": {**dataclasses.asdict(fit.spec), "kind": fit.spec.kind.name}, "transform": transform}
    if fit.score.name not in SCORES:
        seen["score"] = fit.score.to_dict()
    if prints is not None:
        seen |= {"fingerprint": prints.get("test", prints["train"]), "fingerprints": dict(prints)}
    return RunFolder.texts(declared, seen)


def weights(fit: Fit) -> dict[str, Tensor]:
    """What ``model.safetensors`` holds: parameters of the pair, constants of the transform."""
    modules = torch.nn.ModuleDict({"pair": fit.pair, "transform": fit.transform})
    return {name: value.contiguous() for name, value in modules.state_dict().items()}
