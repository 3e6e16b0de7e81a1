"""What a comparison leaves on disk, whatever it compares: plain values, a table for people, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ppl_vae import plots
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.fitting import Comparison
from ppl_vae.models import Model
from ppl_vae.program.processes import by_first
from ppl_vae.storage import check_free
from ppl_vae.storage.atomic import write_json, write_text
from ppl_vae.storage.folder import COMPARISON_FILES
from ppl_vae.storage.swap import new_folder, replace_folder

__all__ = ["save_comparison", "write_comparison"]


@by_first
def save_comparison(comparison: Comparison, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.png`` into a new folder; it appears whole or not at all.

    The JSON file holds besides the table the declared model and data and every way up, as ``climbs``.

    Args:
        comparison: what :func:`ppl_vae.compare` returned.
        path: the folder.
        overwrite: replace a comparison that is there.

    Raises:
        ValueError: the folder is taken.
    """
    check_free(path, overwrite=overwrite, kind="comparison")
    model, source = comparison.model, comparison.data.source
    declared = model.to_dict() if isinstance(model, Model) else str(model)
    content = {**comparison.to_dict(), "model": declared, "data": source.to_dict(), "climbs": comparison.trajectories}
    title = f"{model}\n\n{len(comparison.data.train)} data of `{source.source}`; {UNIT}; times in seconds."
    return write_comparison(path, content, f"{title}\n\n{comparison}\n", plots.compare(comparison), overwrite=overwrite)


def write_comparison(
    path: str | Path, content: Mapping[str, Any], text: str, figure: Figure, *, overwrite: bool = False
) -> Path:
    """Write what any comparison comes to into a new folder: plain values, Markdown and a picture.

    Raises:
        ValueError: the folder is taken.
    """
    path = check_free(path, overwrite=overwrite, kind="comparison")
    with new_folder(path, partial(replace_folder, overwrite=overwrite, kind="comparison")) as folder:
        plain, markdown, picture = (folder / name for name in COMPARISON_FILES)
        write_json(plain, content)
        write_text(markdown, text)
        plots.save(figure, picture)
    return path
