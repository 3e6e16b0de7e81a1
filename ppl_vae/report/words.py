"""What numbers and pictures are called on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppl_vae.text import as_line, is_number
from ppl_vae.types import SCORES, Score

__all__ = ["METRICS", "PICTURES", "caption", "meanings", "number", "with_error"]

METRICS = {
    **{score.name: (score.label, score.meaning) for score in SCORES.values()},
    "log_likelihood": ("log-likelihood", "log p(x) itself, which this model knows."),
    "iwae": ("importance-weighted bound", "A lower bound on log p(x), tighter with more samples (Burda et al. 2016)."),
    "ais": ("annealed importance sampling", "A lower bound on log p(x) from a path of distributions (Neal 2001)."),
    "bdmc_lower": ("lower end of the sandwich", "Bidirectional Monte Carlo (Grosse et al. 2016): log p(x) lies above it."),
    "bdmc_upper": ("upper end of the sandwich", "Bidirectional Monte Carlo (Grosse et al. 2016): log p(x) lies below it."),
    "k_hat_bad": ("untrustworthy weights", "The share of data whose importance weights have a Pareto k-hat above 0.7."),
    "local_elbo": ("ELBO of the best q", "Of the best q of the guide's family for each datum."),
    "local_iwae": ("bound of the best q", "The importance-weighted bound of the best q of the guide's family for each datum."),
    "local_k_hat_bad": ("untrustworthy weights of the best q", "The share of data whose weights have a k-hat above 0.7."),
    "reconstruction": ("reconstruction", "E_q[log p(x | z)], summed over the elements of a datum."),
    "kl": ("KL", "KL(q(z | x) || p(z)), what the code of a datum costs."),
    "gap": ("gap", "log-likelihood - ELBO."),
    "approximation_gap": ("approximation gap", "What the best q of the guide's family for each datum still lacks."),
    "approximation_gap_at_least": (
        "approximation gap, at least",
        "What the best q lacks at the least, where no bound is near enough to log p(x) to tell the gap.",
    ),
    "amortization_gap": ("amortization gap", "What is lost since one network gives every q."),
    "gap_reference": ("gaps counted from", "The bound, or log p(x) itself, that the gaps are the distance from."),
    "bits_per_dim": ("bits per dimension", "The bound in bits per element of a datum. Lower is better."),
    "elbo_per_token": ("ELBO per token", "The ELBO of all rows by the number of their tokens."),
    "log_likelihood_per_token": ("log-likelihood per token", "log p(x) of all rows by the number of their tokens."),
    "iwae_per_token": ("importance-weighted bound per token", "The bound of all rows by the number of their tokens."),
    "tokens": ("tokens of a row", "The mean length of a row, with its end if that is a token."),
    "perplexity": ("perplexity", "exp of minus the tightest number per token or word. Lower is better."),
    "words": ("words of a document", "The mean total of the counts of a datum."),
    "elbo_per_word": ("ELBO per word", "The ELBO of all documents by the number of their words, which come in one order."),
    "completion": ("completion", "Log-probability of a word of one half of a document, given what the other half tells."),
    "npmi": ("coherence, NPMI", "How much oftener than by chance a topic's top words meet in these documents; at most 1."),
    "umass": ("coherence, UMass", "Mean log-probability of a topic's top word given one above it, in these documents."),
    "active_units": ("active units", "Latent dimensions whose posterior mean varies with the data by more than 0.01."),
    "mutual_information": ("mutual information", "How much a code tells of which datum it belongs to."),
    "marginal_kl": ("marginal KL", "KL(q(z) || p(z)), from the aggregate posterior to the prior."),
    "total_correlation": ("total correlation", "How far the dimensions of the aggregate posterior are from independent."),
    "dimension_wise_kl": ("dimension-wise KL", "How far each dimension's aggregate posterior is from the prior, summed."),
    "accuracy": ("accuracy of a probe", "Of a linear classifier of the codes, on these data."),
    "mmd2": ("squared MMD", "Kernel distance of samples and data, near 0 where they are alike (Gretton et al. 2012)."),
    "mmd_p_value": ("p-value of MMD", "Small where samples and data can be told apart."),
    "classifier_accuracy": (
        "accuracy of a classifier test",
        "Of samples against data: 1/2 is best (Lopez-Paz and Oquab 2017).",
    ),
    "classifier_p_value": ("p-value of the classifier", "Small where samples and data can be told apart."),
    "precision": ("precision", "The share of samples on the data's manifold (Kynkäänniemi et al. 2019)."),
    "recall": ("recall", "The share of data on the samples' manifold (Kynkäänniemi et al. 2019)."),
    "frechet_distance": ("Fréchet distance", "Of the normal approximations of samples and data."),
    "n": ("data", "How many data the numbers are means over."),
    "n_effective": ("effective data", "How many data of equal weight tell as much: (sum of weights)^2 / sum of their squares."),
    "samples": ("samples", "Draws of the latent variables per datum."),
    "precision_shift": ("shift by the precision", "What the tightest number gained by rounded products, by the same draws."),
}
"""A label and its meaning."""

PICTURES = {
    "learning_curve": "The score of the fit, its parts and the objective as the fit went on.",
    "tracked": "Numbers tracked on the validation data, as the fit went on.",
    "graph": "The nodes of the network: states in boxes, numbers in rounded ones, what is hidden in grey.",
    "topics": "Topics, near others whose words are alike and as large as their share; by each its most relevant words.",
    "data": "Data.",
    "reconstructions": "Data and their reconstructions.",
    "samples": "New data from the model: draws, or of images the means of p(x | z).",
    "transitions": "How probable what comes next is (a column) after what stands before it (a row).",
    "emissions": "How probable tokens (columns, the most frequent ones) are in each state (a row).",
    "states": "The most probable states of rows of the data, element by element.",
    "completions": "Data of which a part is known, and new data in place of the rest: draws, or of images means.",
    "latent": "Posterior means of the latent variables, coloured by class where there are classes.",
    "aggregate": "The aggregate posterior against the prior, a panel for each dimension.",
    "manifold": "Images decoded from a grid of the latent plane.",
}
"""The pictures of a run, in the order of the page."""


def meanings(own: Score | None) -> dict[str, tuple[str, str]]:
    """:data:`METRICS` with the score of a program that has one of its own."""
    return METRICS if own is None else {own.name: (own.label, own.meaning)} | METRICS


def caption(name: str) -> str:
    """What a picture shows, by its name; of several latent variables with that of one at its end.

    Examples:
        >>> caption("latent_z2")
        'Posterior means of the latent variables, coloured by class where there are classes: z2.'
    """
    kind, _, site = name.partition("_")
    if name not in PICTURES and kind in PICTURES:
        return f"{PICTURES[kind].removesuffix('.')}: {site}."
    return PICTURES.get(name, name.replace("_", " "))


def number(value: Any) -> str:
    """Four digits after the point where they tell something, whole numbers whole."""
    if value is None:
        return "-"
    if not is_number(value):
        return as_line(value)
    if isinstance(value, int) or value == int(value):
        return f"{int(value)}" if abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:.4g}" if abs(value) < 0.01 else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def with_error(numbers: Mapping[str, Any], name: str) -> str:
    """A number and its standard error, if it has one, to as many digits."""
    value, error = number(numbers.get(name)), numbers.get(f"{name}_se")
    if not is_number(error):
        return value
    rounded = f"{error:.{len(value.partition('.')[2])}f}"
    return f"{value} ± {rounded if float(rounded) else number(error)}"
