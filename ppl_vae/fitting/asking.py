"""What a fitted network is asked: some of its variables given others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ppl_vae.data import Transform
from ppl_vae.program.capabilities import Queryable
from ppl_vae.program.pair import Pair
from ppl_vae.types import DataSpec

if TYPE_CHECKING:
    from ppl_vae.models.network.answers import Answer

__all__ = ["Asking"]


class Asking:
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that answers; its attributes are the fit's."""

    pair: Pair
    spec: DataSpec
    transform: Transform

    def query(
        self, names: str | Sequence[str], given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None
    ) -> Answer:
        """The exact distribution of some nodes of a network given others, and how likely that is which is given.

        Args:
            names: a node or several, whose joint distribution is wanted.
            given: what is observed, by node: a state by its name, a number in the units of the source; or a list of them, one
                for each of n questions, with ``None`` or NaN where nothing is observed. ``dict(frame)`` gives the rows of a
                frame of pandas.
            do: what is set from outside, likewise: such a node no longer hangs on its parents, and says nothing of them.

        Returns:
            ``answer["rain"]`` is the marginal of a name, ``{"no": 0.2, "yes": 0.8}`` or of a number a mixture of normals;
            ``answer.table`` the joint table, ``answer.most_probable`` its highest entry, ``answer.log_evidence`` log p(given)
            in nats, ``answer.to_dict()`` plain values.

        Raises:
            ValueError: a model without named variables, an unknown name or state, a name that is given as well, evidence of
                probability zero, or more joint states than a table holds.

        Example:
            ``fit.query("rain", {"wet": "yes", "temp": 12.5}, do={"sprinkler": "on"})``
        """
        answer: Answer = self._network.query(names, given or {}, do or {}, self._units)
        return answer

    def marginals(self, given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The exact distribution of every node with states given others, all of them from one sweep.

        Args:
            given: what is observed, as for :meth:`query`.
            do: what is set from outside, likewise.

        Returns:
            p(state | given, do) by node, ``(*n, L)``, in the order of the node's states.

        Raises:
            ValueError: a model without named variables, an unknown name or state, or evidence of probability zero.

        Example:
            ``fit.marginals({"wet": "yes"})["rain"]``
        """
        found: dict[str, Tensor] = self._network.marginals(given or {}, do or {}, self._units)
        return found

    @property
    def _network(self) -> Queryable:
        """The model, which answers.

        Raises:
            ValueError: it does not.
        """
        model = self.pair.can.answer
        if model is None:
            raise ValueError("expected a model of named variables, such as BayesianNetwork, got one that answers no queries")
        return model

    @property
    def _units(self) -> tuple[Tensor, Tensor]:
        """Shift and scale ``(*event)`` from the units of the source to what the model sees."""
        shift, scale = (values.double().expand(self.spec.event_shape) for values in self.transform.constants)
        return shift, scale
