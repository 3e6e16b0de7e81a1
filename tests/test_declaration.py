"""Declarations: plain values that travel through YAML, and what is refused on the way."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ppl_vae as pv
from ppl_vae.fitting.build import default_guide
from tests.table import EVENT, SEED, fields_for, fits, kind_for, rows

ROOT = Path(__file__).parents[1]
MODEL_FILES = sorted((ROOT / "models").glob("*.yaml"))


def by_number(model: pv.Model) -> pv.Model:
    """The model, with numbers in place of the names of columns of some table."""
    likelihood = getattr(model, "likelihood", None)
    if not isinstance(likelihood, pv.MixedTable):
        return model
    groups = [dataclasses.replace(group, columns=group.columns and (place,)) for place, group in enumerate(likelihood.groups)]
    return dataclasses.replace(model, likelihood=pv.MixedTable(groups=tuple(groups)))  # type: ignore[call-arg]


DECLARED = {path: by_number(pv.Model.from_yaml(path)) for path in MODEL_FILES}
OTHERS = (pv.BayesianNetwork, pv.Lattice)  # of named columns, and of a shape of their own
OF_DATA = [path for path, model in DECLARED.items() if not isinstance(model, OTHERS) and not model.takes_ragged]
GUIDE_FILES = sorted((ROOT / "guides").glob("*.yaml"))

OWN = """
import dataclasses
import ppl_vae as pv
from torch import nn

@dataclasses.dataclass(frozen=True, kw_only=True)
class Wide(pv.Prior):
    spread: float = 2.0
    file: str | None = None
    base: pv.Prior = pv.StandardNormal()

    def build(self, shape):
        return self.base.build(shape)

    def story(self, shape):
        return f"Wide({self.base.story(shape)})"

@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence(pv.Network):
    parts: tuple[pv.Network, ...] = (pv.Linear(), pv.MLP())

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))

    def build(self, in_shape, out_shape):
        return nn.Sequential(self.parts[0].build(in_shape, (3,)), self.parts[1].build((3,), out_shape))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A user's module with declarations of its own."""
    (tmp_path / "own_declarations.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_declarations")
    sys.modules.pop("own_declarations", None)


def one_line(caught: pytest.ExceptionInfo) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# --- YAML -----------------------------------------------------------------------------------------------------------------


def test_own_subclasses_survive_yaml_nested_in_each_other(own) -> None:
    prior = own.Wide(spread=3.5, file="codes.npy", base=own.Wide(base=pv.GaussianMixture(components=3)))
    vae = pv.VAE(latent_dim=3, prior=prior, decoder=own.Sequence(parts=(pv.Linear(bias=False), own.Sequence())))
    text = vae.to_yaml()
    assert "class_path: own_declarations.Wide" in text
    assert pv.VAE.from_yaml(text, trust=["own_declarations"]) == vae
    assert pv.Model.from_yaml(text, trust=["own_declarations"]) == vae
    assert "Wide(Wide(sum_c pi_c" in str(vae)


def test_a_class_from_elsewhere_is_refused_unless_its_module_is_trusted(own) -> None:
    text = own.Wide().to_yaml()
    for trust in ((), ("own",), ("own_declarations.Wide",), ("torch", "os")):
        with pytest.raises(ValueError, match=r"'own_declarations\.Wide' is not part of ppl_vae: if you trust") as caught:
            pv.Prior.from_yaml(text, trust=trust)
        one_line(caught)
    assert pv.Prior.from_yaml(text, trust=["own_declarations"]) == own.Wide()


WAYS_TO_NAME_A_CLASS = {
    "class_path": "{class_path: VAE, init_args: {prior: {class_path: MODULE.Thing}}}",
    "by text": "{class_path: VAE, init_args: {prior: MODULE.Thing}}",
    "YAML in text": "{class_path: VAE, init_args: {prior: '{class_path: MODULE.Thing}'}}",
    "JSON in text": """{class_path: VAE, init_args: {prior: '{"class_path": "MODULE.Thing", "init_args": {}}'}}""",
    "YAML in class_path": "{class_path: VAE, init_args: {prior: {class_path: '{class_path: MODULE.Thing}'}}}",
    "list": "{class_path: VAE, init_args: {prior: [MODULE.Thing]}}",
    "spaces": "{class_path: VAE, init_args: {prior: ' MODULE.Thing '}}",
    "without class_path": "{class_path: VAE, init_args: {prior: {init_args: {class_path: MODULE.Thing}}}}",
    "dotted key": "{class_path: VAE, init_args: {prior.class_path: MODULE.Thing}}",
    "beside init_args": "{class_path: VAE, prior: {class_path: MODULE.Thing}}",
    "dict_kwargs": "{class_path: VAE, dict_kwargs: {prior: {class_path: MODULE.Thing}}}",
    "unknown argument": "{class_path: VAE, init_args: {priors: MODULE.Thing}}",
    "the model itself": "MODULE.Thing",
    "where a number belongs": "{class_path: VAE, init_args: {latent_dim: {class_path: MODULE.Thing}}}",
}


@pytest.mark.parametrize("text", WAYS_TO_NAME_A_CLASS.values(), ids=WAYS_TO_NAME_A_CLASS)
def test_nothing_untrusted_is_imported(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stranger", "stranger-too"):
        (tmp_path / f"{module}.py").write_text("from pathlib import Path\nPath('imported').touch()\nclass Thing: pass\n")
    (tmp_path / "stranger.yaml").write_text("class_path: stranger.Thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for module in ("stranger", "stranger-too"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            pv.Model.from_yaml(text.replace("MODULE", module))
        one_line(caught)
    with pytest.raises(ValueError, match=r"stranger\.yaml"):
        pv.Model.from_yaml("stranger.yaml")
    assert not (tmp_path / "imported").exists()
    assert "stranger" not in sys.modules


BAD_YAML = {
    "empty": ("", "expected a Model, by its class name or its fields, got None"),
    "a number": ("3", "expected a Model, by its class name or its fields, got 3"),
    "a list": ("- VAE", "expected a Model"),
    "not YAML": ("a: [", "not valid YAML"),
    "a YAML tag": ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    "unknown class": ("class_path: VEA", "unknown Model 'VEA': choose from"),
    "unknown class, by name": ("VEA", "unknown Model 'VEA': choose from"),
    "another family": ("class_path: StandardNormal", "unknown Model 'StandardNormal': choose from"),
    "unknown member": ("class_path: VAE\ninit_args: {prior: Nope}", "unknown Prior 'Nope': choose from "),
    "abstract": ("class_path: ppl_vae.Model", "abstract"),
    "no class of ours": ("class_path: ppl_vae.Nope", "ppl_vae.Nope"),
    "no module of ours": ("class_path: ppl_vae.nope.Nope", "ppl_vae.nope"),
    "no declaration": ("class_path: ppl_vae.fit", "expected the import path of a declaration's class, got 'ppl_vae.fit'"),
    "a module of ours": ("class_path: ppl_vae.runs.shutil.rmtree", "ppl_vae.runs.shutil.rmtree"),
    "class_path": ("class_path: 3", "expected the name of a class, got 3"),
    "init_args": ("class_path: VAE\ninit_args: 3", "expected init_args that are names and values, got 3"),
    "unknown argument": ("class_path: VAE\ninit_args: {latent: 3}", "'latent' is not accepted"),
    "text for an int": ("class_path: VAE\ninit_args: {latent_dim: two}", "Expected a <class 'int'>. Got value: two"),
    "bool for an int": ("class_path: VAE\ninit_args: {latent_dim: true}", "Expected a <class 'int'>. Got value: True"),
    "null for an int": ("class_path: VAE\ninit_args: {latent_dim: null}", "expected latent_dim: int, got None"),
    "null for a prior": ("class_path: VAE\ninit_args: {prior: null}", "expected prior: Prior, got None"),
    "out of range": ("class_path: VAE\ninit_args: {latent_dim: 0}", "expected a latent_dim of at least 1, got 0"),
    "deep": (
        "class_path: VAE\ninit_args: {decoder: {class_path: MLP, init_args: {hidden: [a]}}}",
        "Expected a <class 'int'>. Got value: a",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_bad_yaml(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pv.Model.from_yaml(text)
    assert message in one_line(caught)


def test_text_that_is_data_is_not_taken_for_a_class() -> None:
    source = pv.DataSource(source="a.b.npz", label="os.system", key="x.y", root="some.where")
    assert pv.DataSource.from_yaml(source.to_yaml()) == source


@pytest.mark.parametrize("text", ["", "3", "[]", "nope: 1", "source: [1]", "valid: x", "valid: 2.0"])
def test_bad_yaml_of_a_declaration_without_family(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pv.DataSource.from_yaml(text)
    one_line(caught)


# --- the files at the root ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODEL_FILES + GUIDE_FILES, ids=lambda path: path.name)
def test_a_declared_file_opens_with_what_it_is_and_is_read(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    declared = (pv.Model if path.parent.name == "models" else pv.Guide).from_yaml(path)
    assert type(declared).from_yaml(declared.to_yaml()) == declared


@cache
def read(base: type[pv.Declaration], path: Path) -> Any:
    """What a file declares, read once for all that it is paired with."""
    return base.from_yaml(path)


def steps(declared: pv.Model, guide: pv.Guide | None) -> None:
    """A pair takes a step on data that the model can have come from, and every parameter has a gradient."""
    torch.manual_seed(SEED)
    event = (1, 8, 8) if isinstance(declared, pv.VQVAE) else EVENT  # grids of codes are those of digits
    x = rows(kind_for(declared), event=event)
    y, classes = torch.arange(len(x)) % 2, ("even", "odd")  # for models that are conditioned on labels
    shape, kind = tuple(x.shape[1:]), kind_for(declared)
    spec = pv.DataSpec(event_shape=shape, kind=kind, size=len(x), classes=classes, fields=fields_for(declared))
    pair = pv.build(declared, guide or default_guide(declared, pv.SVI()), spec)
    beside = {name: [classes[place] for place in y] for name in declared.fields}
    data = pv.load_data({"x": x, **beside} if beside else x, y=None if beside else y, valid=0.0, test=0.0)
    fitted = pv.SVI(epochs=1, batch_size=len(x)).run(pair, declared.resolve(data) if beside else data, lambda row: None)
    assert torch.tensor(fitted[0][pair.score]).isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pair.parameters() if p.requires_grad)


@pytest.mark.parametrize("model", OF_DATA, ids=lambda path: path.stem)
def test_every_model_file_steps_with_a_guide_of_its_own(model: Path) -> None:
    steps(DECLARED[model], None)


@pytest.mark.parametrize("guide", GUIDE_FILES, ids=lambda path: path.stem)
def test_every_guide_file_steps_with_a_model_file(guide: Path) -> None:
    declared = read(pv.Guide, guide)
    model = next((DECLARED[model] for model in OF_DATA if fits(DECLARED[model], declared)), None)
    if model is not None:
        steps(model, declared)
    else:  # no file has a latent variable of its kind
        with pytest.raises(ValueError, match=": use ") as caught:
            steps(DECLARED[OF_DATA[0]], declared)
        one_line(caught)


# Of small models and guides it is asked by the laws.
@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDE_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("model", OF_DATA, ids=lambda path: path.stem)
def test_every_model_file_steps_with_every_guide_file(model: Path, guide: Path) -> None:
    declared, with_guide = DECLARED[model], read(pv.Guide, guide)
    if fits(declared, with_guide):
        steps(declared, with_guide)
    else:
        with pytest.raises(ValueError, match=": use ") as caught:
            steps(declared, with_guide)
        one_line(caught)


# --- values and stories ---------------------------------------------------------------------------------------------------


def test_replace_swaps_one_part() -> None:
    vae = pv.VAE(latent_dim=3)
    swapped = dataclasses.replace(vae, prior=pv.GaussianMixture(components=2))
    assert swapped.prior == pv.GaussianMixture(components=2)
    assert (swapped.latent_dim, swapped.decoder) == (vae.latent_dim, vae.decoder)
    assert swapped != vae == dataclasses.replace(swapped, prior=vae.prior)
    assert len({vae, swapped, pv.VAE(latent_dim=3)}) == 2
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(vae, latent_dim=0)


def groups(first: pv.Likelihood, others: pv.Likelihood) -> tuple[pv.ColumnGroup, ...]:
    return (pv.ColumnGroup(columns=(0,), likelihood=first), pv.ColumnGroup(likelihood=others))


STORIES = {
    "VAE": (pv.VAE(), "z ~ Normal(0, I_8); x | z ~ Bernoulli(logits = MLP(z))"),
    "linear": (pv.VAE(decoder=pv.Linear()), "z ~ Normal(0, I_8); x | z ~ Bernoulli(logits = Linear(z))"),
    "mixture": (
        pv.VAE(prior=pv.GaussianMixture(components=5)),
        "z ~ sum_c pi_c Normal(mu_c, diag(sigma_c^2)), c = 1..5; x | z ~ Bernoulli(logits = MLP(z))",
    ),
    "shared": (pv.VAE(likelihood=pv.Gaussian()), "z ~ Normal(0, I_8); x | z ~ Normal(MLP(z), sigma^2 I)"),
    "fixed": (
        pv.VAE(latent_dim=2, likelihood=pv.Gaussian(scale="fixed", value=0.1)),
        "z ~ Normal(0, I_2); x | z ~ Normal(MLP(z), 0.1^2 I)",
    ),
    "amortized": (
        pv.VAE(likelihood=pv.Gaussian(scale="amortized")),
        "z ~ Normal(0, I_8); x | z ~ Normal(mu(z), diag(sigma(z)^2)), (mu, sigma)(z) = MLP(z)",
    ),
    "without z": (
        pv.SequenceModel(network=pv.MADE(), likelihood=pv.Gaussian(scale="amortized")),
        "x_t | x_<t ~ Normal(mu(x_<t), diag(sigma(x_<t)^2)), (mu, sigma)(x_<t) = MADE(x_<t)",
    ),
    "groups": (
        pv.VAE(likelihood=pv.MixedTable(groups=groups(pv.Bernoulli(), pv.Masked(likelihood=pv.Gaussian())))),
        "z ~ Normal(0, I_8); x | z ~ Bernoulli(logits = MLP(z))[0] x Normal(MLP(z), sigma^2 I)[others, where observed]",
    ),
    "groups with gaps": (
        pv.VAE(likelihood=pv.MixedTable(groups=groups(*(pv.Masked(likelihood=x) for x in (pv.Bernoulli(), pv.Gaussian()))))),
        "z ~ Normal(0, I_8); x | z ~ Bernoulli(logits = MLP(z))[0] x Normal(MLP(z), sigma^2 I)[others], observed entries only",
    ),
    "guide": (pv.AmortizedNormal(), "q(z | x) = Normal(mu(x), diag(sigma(x)^2)), (mu, sigma)(x) = MLP(x)"),
    "full": (
        pv.AmortizedNormal(covariance="full", encoder=pv.Linear()),
        "q(z | x) = Normal(mu(x), L(x) L(x)^T), (mu, L)(x) = Linear(x)",
    ),
}


@pytest.mark.parametrize(("declaration", "story"), STORIES.values(), ids=STORIES)
def test_a_declaration_tells_its_story(declaration: pv.Declaration, story: str) -> None:
    assert str(declaration) == f"{declaration}" == story


BAD_VALUES = {
    "no latent": (pv.VAE, {"latent_dim": 0}),
    "None": (pv.VAE, {"latent_dim": None}),
    "no prior": (pv.VAE, {"prior": None}),
    "a class, not a value": (pv.VAE, {"prior": pv.StandardNormal}),
    "a name": (pv.VAE, {"prior": "StandardNormal"}),
    "another family": (pv.VAE, {"likelihood": pv.StandardNormal()}),
    "a module": (pv.VAE, {"decoder": nn.Identity()}),
    "components": (pv.GaussianMixture, {"components": 0}),
    "spread": (pv.GaussianMixture, {"spread": 0.0}),
    "spread nan": (pv.GaussianMixture, {"spread": float("nan")}),
    "scale": (pv.Gaussian, {"scale": "diagonal"}),
    "value": (pv.Gaussian, {"value": -1.0}),
    "value inf": (pv.Gaussian, {"value": float("inf")}),
    "floor": (pv.Gaussian, {"floor": 0.5}),
    "width": (pv.MLP, {"hidden": (0,)}),
    "width float": (pv.MLP, {"hidden": (2.5,)}),
    "activation": (pv.MLP, {"activation": "sine"}),
    "covariance": (pv.AmortizedNormal, {"covariance": "low rank"}),
    "encoder": (pv.AmortizedNormal, {"encoder": pv.AmortizedNormal()}),
    "particles": (pv.ELBO, {"particles": 0}),
    "kl": (pv.ELBO, {"kl": "exact"}),
    "epochs": (pv.SVI, {"epochs": 0}),
    "batch_size": (pv.SVI, {"batch_size": 0}),
    "learning_rate": (pv.SVI, {"learning_rate": 0.0}),
    "learning_rate nan": (pv.SVI, {"learning_rate": float("nan")}),
    "learning_rate inf": (pv.SVI, {"learning_rate": float("inf")}),
    "optimizer": (pv.SVI, {"optimizer": "lbfgs"}),
    "schedule": (pv.SVI, {"schedule": "linear"}),
    "clip_norm": (pv.SVI, {"clip_norm": 0.0}),
    "patience": (pv.SVI, {"patience": 0}),
    "objective": (pv.SVI, {"objective": "ELBO"}),
}


@pytest.mark.parametrize(("cls", "fields"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_constructor_values(cls: type[pv.Declaration], fields: dict) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got ") as caught:
        cls(**fields)
    one_line(caught)


def test_fields_are_keywords_and_known() -> None:
    with pytest.raises(TypeError):
        pv.VAE(8)
    with pytest.raises(TypeError, match="latent"):
        pv.VAE(latent=8)
    with pytest.raises(TypeError, match="abstract"):
        pv.Prior()


# --- what numpy gives -----------------------------------------------------------------------------------------------------


def test_numbers_and_text_of_numpy_become_pythons() -> None:
    svi = pv.SVI(epochs=np.int64(2), learning_rate=np.float32(0.5), optimizer=np.str_("sgd"))
    assert [type(value) for value in (svi.epochs, svi.learning_rate, svi.optimizer)] == [int, float, str]
    assert svi == pv.SVI(epochs=2, learning_rate=0.5, optimizer="sgd")
    assert [type(width) for width in pv.MLP(hidden=(np.int32(3), 4)).hidden] == [int, int]


@pytest.mark.parametrize("value", [["adam"], {"adam": 1}, {"adam"}, np.array(["adam", "sgd"]), torch.zeros(2), len])
@pytest.mark.parametrize("name", ["optimizer", "schedule", "alternate", "compile", "precision", "on_nonfinite"])
def test_a_choice_is_one_word(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"expected {name}: ") as caught:
        pv.SVI(**{name: value})
    one_line(caught)


@pytest.mark.parametrize("value", [0, 1, 1.0, "yes"])
def test_numbers_do_not_stand_for_true_and_false(value: object) -> None:
    with pytest.raises(ValueError, match="a compile that is auto, true or false, got"):
        pv.SVI(compile=value)
