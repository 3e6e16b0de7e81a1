"""A declared model as an estimator of scikit-learn: in its pipelines, searches and cross-validation, under its names."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ppl_vae.data import Data, load_data
from ppl_vae.declaration import Declaration
from ppl_vae.fitting.callbacks.progress import quiet
from ppl_vae.fitting.checks import check_declared
from ppl_vae.fitting.defaults import default_method
from ppl_vae.fitting.fit import fit, settled
from ppl_vae.fitting.fitted import Fit
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.models import VAE, Model
from ppl_vae.nested import fields_within, with_fields
from ppl_vae.text import as_line
from ppl_vae.types import REAL

__all__ = ["Estimator"]

PARTS = ("model", "method", "guide")
F = TypeVar("F", bound=Callable[..., Any])


def _where(ability: Callable[[Model], bool]) -> Callable[[F], F]:
    """A method that an estimator has where its declared model has the ability."""
    found: Callable[[F], F] = available_if(lambda self: isinstance(self._model, Model) and ability(self._model))
    return found


def _encodes(model: Model) -> bool:
    return not model.labelled  # codes of rows with labels take those too


def _bounds(model: Model) -> bool:
    return not model.labelled and model.posterior_family not in ("point", "projection")


class Estimator(TransformerMixin, BaseEstimator):
    """A declared model with the verbs of scikit-learn; what a model cannot do is no method of its estimator.

    ``transform`` gives codes (of a mixture the probabilities of its components), ``score_samples`` log p(x) of each row or a
    lower bound on it, ``score`` its mean, in nats and in the units of X. Rows are tables ``(N, D)`` of numbers, arrays or
    frames. All of them are training rows unless ``valid`` holds some out, by which some methods stop. Whatever the fit was
    made in, rows are worked on in float64, and codes come in the precision of X.

    Args:
        model: the declared model; ``VAE()`` by default.
        method: how it is fitted; by default by formula or EM where the model offers it, else SVI, as of :func:`~ppl_vae.fit`.
        guide: the approximate posterior; by default what suits model and method.
        valid: fraction of the rows of X held out for validation.
        scale: ``standardize``, ``unit``, ``none`` or ``auto``, as of :class:`~ppl_vae.DataSource`; numbers stay in units of X.
        missing: ``ignore`` hands missing entries (NaN) to models that support them; by default they are an ``error``.
        samples: of the latent variables, for bounds and predictions that are not exact.
        device: where, as for :func:`~ppl_vae.fit`.
        random_state: a seed, or a generator that gives one; by default the seed of the method.

    Attributes:
        fit_: the :class:`~ppl_vae.Fit`, with all that can be asked of one.
        n_features_in_, feature_names_in_: of X, the latter of frames.
        n_iter_: iterations of the fit.
        classes_: of a model that is conditioned on labels the classes.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(60, 3))
        >>> estimator = Estimator(FactorAnalysis(latent_dim=1), EM()).fit(x)
        >>> estimator.transform(x).shape, estimator.set_params(model__latent_dim=2).fit(x).transform(x).shape
        ((60, 1), (60, 2))
    """

    fit_: Fit

    def __init__(
        self,
        model: Model | None = None,
        method: Method | None = None,
        guide: Guide | None = None,
        *,
        valid: float = 0.0,
        scale: str = "auto",
        missing: str = "error",
        samples: int = 100,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.method = method
        self.guide = guide
        self.valid = valid
        self.scale = scale
        self.missing = missing
        self.samples = samples
        self.device = device
        self.random_state = random_state

    @property
    def _model(self) -> Model:
        return VAE() if self.model is None else self.model

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with ``deep`` the fields of the declarations too, as ``model__components``."""
        params: dict[str, Any] = super().get_params(deep=False)
        parts = {name: params[name] for name in PARTS if deep and isinstance(params[name], Declaration)}
        return params | {
            name: v for part, declared in parts.items() for name, v in fields_within(declared, f"{part}__").items()
        }

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, fields of declarations as ``model__components``.

        Raises:
            ValueError: an unknown name, or a value that a declaration does not take.
        """
        own = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**own)
        for part in dict.fromkeys(name.partition("__")[0] for name in params if name not in own):
            if part not in PARTS:
                raise ValueError(f"expected fields of {', '.join(PARTS)}, such as model__components, got {part!r}")
            declared = self._model if part == "model" else getattr(self, part)
            if not isinstance(declared, Declaration):
                raise ValueError(f"expected a declared {part} whose fields could be set, got {declared!r}: give {part} itself")
            values = {name.partition("__")[2]: v for name, v in params.items() if name.startswith(f"{part}__")}
            setattr(self, part, with_fields(declared, values))
        return self

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Fit the model to rows.

        Args:
            X: rows ``(N, D)``.
            y: the class of each row, where the model is conditioned on labels; else it is not looked at.

        Raises:
            ValueError: rows that the model is no density of, or declarations that do not go together.
        """
        check_declared(self._model, self.guide, SVI() if self.method is None else self.method)
        rows = self._rows(X, reset=True)
        try:
            fitted = self._fitted(self._data(rows, y))
        except ValueError as error:
            told = f"n_samples={rows.shape[0]}, n_features={rows.shape[1]}"
            raise ValueError(f"{as_line(error, most=600)} ({told})") from error
        self.n_iter_ = len(fitted.history)
        self.fit_ = _in_float64(fitted)
        if self._model.labelled:
            given = {str(value): value for value in np.unique(np.asarray(y)).tolist()}
            self.classes_ = np.array([given.get(str(name), name) for name in fitted.class_names.tolist()])
        else:
            self._n_features_out = self.fit_._columns(torch.from_numpy(rows[:1])).shape[1]
        return self

    def _fitted(self, data: Data) -> Fit:
        method = default_method(settled(self._model, data), self.guide, data) if self.method is None else self.method
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            method = dataclasses.replace(method, seed=seed)
        return fit(self._model, data, guide=self.guide, method=method, device=self.device, progress=quiet)

    def _data(self, rows: np.ndarray, y: Any) -> Data:
        """The rows as a fit takes them: real numbers where the model takes such, whatever values they happen to have."""
        kind = "real" if REAL in self._model.accepts else None
        labels = np.asarray(y) if self._model.labelled and y is not None else None
        options: dict[str, Any] = {"valid": self.valid, "scale": self.scale, "missing": self.missing}
        data = load_data(rows, y=labels, test=0.0, kind=kind, **options)
        names = tuple(map(str, vars(self).get("feature_names_in_", ())))
        splits = {part: getattr(data, part).renamed(names) for part in ("train", "valid", "test")}
        return dataclasses.replace(data, spec=dataclasses.replace(data.spec, columns=names), **splits)

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:  # noqa: N803
        """Rows that were checked, as an array; with ``reset`` their number of columns and names are kept.

        Raises:
            ValueError: no table of finite numbers, or one of other columns than those that were fitted to.
        """
        if not reset:
            check_is_fitted(self)
        finite: Any = "allow-nan" if self.missing == "ignore" else True
        dtype = [np.float64, np.float32]
        rows = validate_data(self, X, reset=reset, dtype=dtype, ensure_all_finite=finite, ensure_min_samples=2 if reset else 1)
        return np.array(rows) if not rows.flags.writeable else rows

    @_where(_encodes)
    def transform(self, X: Any) -> Any:  # noqa: N803
        """Codes of rows ``(N, K)``: posterior means, those of several latent variables side by side.

        Args:
            X: rows ``(N, D)``.
        """
        rows = self._rows(X)
        return _array(self.fit_._columns(torch.from_numpy(rows)), rows.dtype)

    @_where(_encodes)
    def inverse_transform(self, X: Any) -> Any:  # noqa: N803
        """Means of p(x | z) at codes, ``(N, D)`` in the units of the rows that were fitted to.

        Args:
            X: codes ``(N, K)``.
        """
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        return _array(self.fit_.decode(codes), codes.dtype)

    @_where(_encodes)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns that ``transform`` gives: the model's in small letters, numbered from 0."""
        check_is_fitted(self)
        return np.array([f"{type(self._model).__name__.lower()}{place}" for place in range(self._n_features_out)], dtype=object)

    @_where(_bounds)
    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """Log p(x) of each row ``(N,)`` in nats, or a lower bound on it where the model does not know it.

        Args:
            X: rows ``(N, D)``.
        """
        rows = torch.from_numpy(self._rows(X))
        return _array(self.fit_.score_samples(rows, samples=self.samples).log_prob, np.float64)

    @_where(_bounds)
    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of :meth:`score_samples`.

        Args:
            X: rows ``(N, D)``.
            y: not looked at.
        """
        return float(self.score_samples(X).mean())

    @_where(lambda model: model.categorical)
    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The probabilities of components or classes ``(N, C)``.

        Args:
            X: rows ``(N, D)``.
        """
        rows = torch.from_numpy(self._rows(X))
        return _array(self.fit_.predict_proba(rows, samples=self.samples), np.float64)

    @_where(lambda model: model.categorical)
    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable component, numbered from 0, or class of each row ``(N,)``.

        Args:
            X: rows ``(N, D)``.
        """
        places = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[places] if self._model.labelled else places)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws from the fitted model ``(n_samples, D)`` in the units of the rows that were fitted to.

        Args:
            n_samples: how many.
            random_state: a seed, or a generator that gives one.
        """
        check_is_fitted(self)
        seed = 0 if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        return _array(self.fit_.sample(n_samples, seed=seed), np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        model = self._model
        tags.input_tags.allow_nan = self.missing == "ignore"
        tags.target_tags.required = isinstance(model, Model) and model.labelled
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


# scikit-learn wraps transform for set_output when the class is made, and forgets meanwhile that not every model has it.
for _name in ("transform", "fit_transform"):
    setattr(Estimator, _name, _where(_encodes)(getattr(Estimator, _name)))


def _in_float64(fitted: Fit) -> Fit:
    """The same fit, by which what is asked of a row does not depend on the rows beside it."""
    if fitted.device.type == "mps":
        return fitted
    pair, transform = copy.deepcopy((fitted.pair, fitted.transform))
    return dataclasses.replace(fitted, pair=pair.to(torch.float64), transform=transform.to(torch.float64))


def _array(found: Tensor | np.ndarray, dtype: Any) -> np.ndarray:
    return (found.cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)).astype(dtype)
