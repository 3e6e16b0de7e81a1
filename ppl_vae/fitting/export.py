"""A part of a fit as a file that other programs run, checked against the fit when it is written."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ppl_vae.arguments import as_path
from ppl_vae.data import Split
from ppl_vae.fitting.graphs import DecoderGraph, EncoderGraph, exported
from ppl_vae.fitting.inputs import in_source_units
from ppl_vae.fitting.sampling import Sampling
from ppl_vae.program.sites import leaves, tree
from ppl_vae.storage.atomic import replaced
from ppl_vae.text import as_line

__all__ = ["Exporting"]

Part = Literal["encoder", "decoder"]

ROWS = 64  # that a file is checked on
BATCH = "batch"
X = "x"


class Exporting(Sampling):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that leaves it as a file."""

    model: Any
    guide: Any

    def export(self, path: str | Path, *, part: Part = "encoder", tolerance: float = 1e-5) -> Path:
        """Write the encoder or the decoder as a graph of tensors, the fit's transform inside: ONNX or torch's own ``.pt2``.

        The encoder takes ``x (batch, *event)`` in the units of the source and gives what :meth:`encode` does, ``z (batch,
        *latent)`` or each latent variable by its name; the decoder takes these and gives what :meth:`decode` does. Any number
        of rows does. Of binarized data x are zeros and ones; to whole numbers that the fit saw with noise, the encoder adds
        the noise's mean, 0.5. Inputs are float32, float64 of data that the transform keeps so.

        Args:
            path: the file, which appears whole or not at all: ``.onnx`` (extra ``export``), or ``.pt2`` for
                ``torch.export.load``.
            part: ``encoder`` or ``decoder``.
            tolerance: the file is run on samples of the fit, ONNX by onnxruntime where it is installed and by onnx itself
                otherwise; no number may differ by more than this from the fit's own, relative to the largest of them or to 1.

        Returns:
            The path.

        Raises:
            ValueError: another suffix or part, a fit without such a part (plain programs that do not say q(z | x) or p(x | z),
                networks, lattices, models that are conditioned on labels or on a part of the data, rows of different lengths),
                programs that torch makes no graph of, a file whose numbers differ, or a package that is not installed.
            OSError: it cannot be written.

        Examples:
            ``fit.export("encoder.onnx")``, then ``onnxruntime.InferenceSession("encoder.onnx").run(None, {"x": x})``
        """
        if part not in ("encoder", "decoder"):
            raise ValueError(f"expected a part that is encoder or decoder, got {part!r}")
        path = as_path(path)
        write, run = _format(path)
        self._check_exportable(part)
        x = self._examples()
        codes = {name: value for name, value in leaves(self._encoded(x)).items() if name not in self.shared}
        encoding = part == "encoder"
        inputs = {X: x} if encoding else codes
        outputs = codes if encoding else {X: self.decode(tree(codes)).cpu()}
        examples = tuple(value.to(self.device) for value in inputs.values())
        graph = exported(self._graph(part, tuple(codes)), examples, several=not encoding)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"expected a folder {path.parent} to write {path.name} to, got {as_line(error)}") from None
        if path.is_dir():
            raise ValueError(f"expected the path of a file, got {path}, which is a folder: name another")
        with replaced(path) as partial:
            write(
                graph,
                partial,
                tuple(inputs),
                tuple(outputs),
                {"part": part, "model": str(self.model), "guide": str(self.guide)},
            )
            for rows in (slice(None), slice(1)):
                found = run(partial, {name: value[rows] for name, value in inputs.items()})
                _check_equal(found, {name: value[rows] for name, value in outputs.items()}, tolerance, path)
        return path

    def _check_exportable(self, part: Part) -> None:
        """Raise ``ValueError`` if there is no such part that takes and gives tensors alone."""
        facts, can = self.pair.model_facts, self.pair.can
        if self.spec.ragged or self.spec.fields or self.transform.indices:
            raise ValueError("expected a fit to one tensor of x to export, got rows of different lengths or several fields")
        if facts.labelled or facts.covariates or facts.known_entries is not None:
            told = "labels, covariates or a part of x"
            raise ValueError(f"expected a model of x alone to export, got one that is conditioned on {told}")
        if can.answer is not None or facts.latent == "lattice":
            what = "a network's posterior" if can.answer is not None else "what is known of a lattice"
            raise ValueError(f"expected a model with an encoder to export, got one without: {what} is no graph of torch.export")
        if self.pair.local:
            raise ValueError("expected an encoder of any rows to export, got a guide with parameters for each training row")
        if can.encode is None or (part == "decoder" and can.generate is None):
            raise ValueError(
                "expected programs that say q(z | x) and p(x | z) as distributions to export, got plain ones: declare the "
                "model, or give the guide `posterior` and the model `prior` and `decode`"
            )

    def _graph(self, part: Part, names: Sequence[str]) -> torch.nn.Module:
        if part == "encoder":
            return EncoderGraph(self.pair, self._shown, names)
        return DecoderGraph(self.pair, self.transform, self.spec, names, dequantized=self.dequantized)

    @property
    def _shown(self) -> Any:
        """The transform, which adds noise wherever that of the training data was added."""
        return self._entrance.transform

    def _examples(self) -> Tensor:
        """Samples of the fit ``(64, *event)`` in the units of the source, on the CPU."""
        options: dict[str, Any] = {"means": False, "dequantized": self.dequantized}
        seen = self.sample(ROWS, seen=True).clamp(*self.spec.limits)  # a likelihood may know more levels than the data have
        x = in_source_units(seen, self.transform, self.spec, **options).cpu()
        return x.double() if self.transform.exact is not None else x.float()

    def _encoded(self, x: Tensor) -> Any:
        """Codes of rows, by the fit itself, without noise."""
        shown = self._shown
        if not shown.noisy:
            return torch.utils._pytree.tree_map(Tensor.cpu, self.encode(x))
        seen = EncoderGraph(self.pair, shown, ()).seen(x.to(self.device))
        return torch.utils._pytree.tree_map(Tensor.cpu, self.encode(Split(seen, None, shown.applied())))


def _format(path: Path) -> tuple[Callable[..., None], Callable[..., list[Any]]]:
    """How a file of this suffix is written, and run.

    Raises:
        ValueError: another suffix, or packages that are not installed.
    """
    if path.suffix == ".pt2":
        return _write_pt2, _run_pt2
    if path.suffix != ".onnx":
        raise ValueError(f"expected a file that ends in .onnx or .pt2, got {path.name!r}")
    lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if lacking:
        raise ValueError(f"{path}: ONNX needs {' and '.join(lacking)}: pip install 'ppl_vae[export]', or write .pt2")
    return _write_onnx, _run_onnx


def _write_pt2(
    graph: torch.export.ExportedProgram, path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], told: dict[str, str]
) -> None:
    graph.example_inputs = None  # which would be pickled
    with path.open("wb") as file:
        torch.export.save(graph, file, extra_files={"ppl_vae.json": json.dumps({**told, "inputs": inputs, "outputs": outputs})})


def _write_onnx(
    graph: torch.export.ExportedProgram, path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], told: dict[str, str]
) -> None:
    import onnx_ir

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of operators, which users of ours do not choose
            program: Any = torch.onnx.export(graph, (), input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        found = re.findall(r"OpOverload\(op='([\w.]+)'", str(error))
        what = f"has no operator for {found[0]}" if found else f"cannot hold it: {as_line(error)}"
        raise ValueError(f"this part has no form in ONNX, which {what}: write .pt2, or use the fit") from error
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        value.shape = onnx_ir.Shape([BATCH, *value.shape[1:]])
    program.model.metadata_props.update({f"ppl_vae.{name}": value for name, value in told.items()})
    program.save(path, external_data=False)


def _run_pt2(path: Path, inputs: dict[str, Tensor]) -> list[Any]:
    with path.open("rb") as file:
        return list(torch.export.load(file).module()(*inputs.values()))


def _run_onnx(path: Path, inputs: dict[str, Tensor]) -> list[Any]:
    values = {name: value.numpy() for name, value in inputs.items()}
    if importlib.util.find_spec("onnxruntime") is None:
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(str(path)).run(None, values))
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        raise ValueError(f"onnxruntime refuses the ONNX form of this part: {as_line(error)}; write .pt2") from error
    return list(session.run(None, values))


def _check_equal(found: list[Any], wanted: dict[str, Tensor], tolerance: float, path: Path) -> None:
    """Raise ``ValueError`` if what a file gives is not what the fit gives."""
    for (name, value), given in zip(wanted.items(), found, strict=True):
        expected, got = value.double().numpy(), np.asarray(given, dtype=np.float64)
        if got.shape != expected.shape:
            raise ValueError(f"{path}: expected {name} of shape {expected.shape}, as the fit gives it, got {got.shape}")
        error = float(np.abs(got - expected).max(initial=0.0)) / max(1.0, float(np.abs(expected).max(initial=0.0)))
        if not error <= tolerance:
            raise ValueError(
                f"{path}: {name} of the file differs from the fit's own by {error:.3g}, more than the tolerance of "
                f"{tolerance:g}: nothing was written; allow more (tolerance), or use the fit from Python"
            )
