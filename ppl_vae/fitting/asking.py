"""What a fitted network is asked: some of its variables given others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ppl_vae.data import Transform
from ppl_vae.program.asking import asked_of, columns_of
from ppl_vae.program.capabilities import Queryable
from ppl_vae.program.pair import Pair
from ppl_vae.types import DataSpec

if TYPE_CHECKING:
    from ppl_vae.models.network.answers import Answer, Explanation
    from ppl_vae.models.network.estimates import Estimate

__all__ = ["Asking"]


class Asking:
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that answers; its attributes are the fit's."""

    pair: Pair
    spec: DataSpec
    transform: Transform

    def query(
        self,
        names: str | Sequence[str],
        given: Mapping[str, Any] | None = None,
        *,
        do: Mapping[str, Any] | None = None,
        method: Literal["exact", "sampling"] = "exact",
        draws: int | None = None,
        seed: int = 0,
    ) -> Answer | Estimate:
        """The distribution of some nodes of a network given others, and how likely that is which is given.

        Args:
            names: a node or several, whose joint distribution is wanted.
            given: what is observed, by node: a state by its name, a number in the units of the source; or a list of them, one
                for each of n questions, with ``None`` or NaN where nothing is observed; or a frame of pandas, whose columns
                are nodes.
            do: what is set from outside, likewise, a value in every row: such a node no longer hangs on its parents, and says
                nothing of them.
            method: ``exact``, or ``sampling`` by likelihood weighting, which answers also where sums would not fit, below
                nodes that are networks, and where a regression of states hangs on unknown numbers.
            draws: how many of ``sampling``, of each question; 10,000 by default.
            seed: of the draws.

        Returns:
            ``answer["rain"]`` is the marginal of a name, ``{"no": 0.2, "yes": 0.8}`` or of a number a mixture of normals;
            ``answer.table`` the joint table, ``answer.most_probable`` its highest entry, ``answer.log_evidence`` log p(given)
            in nats, ``answer.to_dict()`` plain values. By sampling all are estimates: ``answer.error("rain")`` and
            ``answer.log_evidence_error`` are standard errors, and ``answer.effective`` says how many draws of equal weight
            would tell as much.

        Raises:
            ValueError: a model without named variables, an unknown name or state, a name that is given as well, evidence of
                probability zero, more joint states than a table holds, or a network that cannot be summed exactly.

        Examples:
            ``fit.query("rain", {"wet": "yes", "temp": 12.5}, do={"sprinkler": "on"})``
        """
        options: dict[str, Any] = {"method": method, "draws": draws, "seed": seed}
        answer: Answer | Estimate = asked_of(self._network, names, given, do, self._units, **options)
        return answer

    def explain(self, given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None) -> Explanation:
        """The most probable explanation: what all nodes that are not given most probably are, together.

        Args:
            given: what is observed, as for :meth:`query`.
            do: what is set from outside, likewise.

        Returns:
            ``.values`` by node, ``.log_probability`` of these values given what is observed, ``.log_evidence`` of that itself.

        Raises:
            ValueError: a model without named variables, an unknown name or state, or evidence of probability zero.

        Examples:
            ``fit.explain({"wet": "yes"}).values`` is ``{"rain": "yes", "temp": 12.5}``
        """
        found: Explanation = self._network.explain(columns_of(given), columns_of(do), self._units)
        return found

    def marginals(self, given: Mapping[str, Any] | None = None, *, do: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The exact distribution of every node with states given others, all of them from one sweep.

        Args:
            given: what is observed, as for :meth:`query`.
            do: what is set from outside, likewise.

        Returns:
            p(state | given, do) by node, ``(*n, L)``, in the order of the node's states.

        Raises:
            ValueError: a model without named variables, an unknown name or state, or evidence of probability zero.

        Examples:
            ``fit.marginals({"wet": "yes"})["rain"]``
        """
        found: dict[str, Tensor] = self._network.marginals(columns_of(given), columns_of(do), self._units)
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
