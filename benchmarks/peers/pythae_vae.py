"""pythae's ``VAE`` of several layers, trained by its ``BaseTrainer`` on freshly binarized images.

Left out, in its favour: the progress bar, logs and checkpoints. Each visit of a training image draws new binary values, as
ours does.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pythae.models
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.evaluate import evaluate
from ppl_vae.program.pair import Pair

__all__ = ["Guide", "Model", "network", "train_and_score"]


def train_and_score(
    data: pv.Data, *, hidden: Sequence[int], latent: int, epochs: int, batch: int, samples: int, seed: int
) -> dict[str, Any]:
    """Train on gray images, score on the binary test images; nats per datum and seconds.

    The importance-weighted bound is the one that :func:`ppl_vae.fit` reports, of a Pyro pair that holds pythae's networks.
    """
    logging.disable()
    torch.manual_seed(seed)
    gray = data.train.x.flatten(1).float() / 255
    vae = network([gray.shape[1], *hidden, latent])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=batch, learning_rate=1e-3)
        trainer = BaseTrainer(vae, _Binarized(gray, torch.zeros(len(gray))), training_config=settings)
        trainer.prepare_training()
        trainer.callback_handler = CallbackHandler([TrainingCallback()], trainer.model)
        for epoch in range(1, epochs + 1):
            trainer.train_step(epoch=epoch)
    trained = time.perf_counter()
    pair = Pair(Model(vae), Guide(vae), mean_field=True)
    numbers = evaluate(pair, data.test, samples=samples)
    return {**numbers, "epochs": epochs, "train_s": trained - began, "evaluate_s": time.perf_counter() - trained}


def network(widths: Sequence[int]) -> pythae.models.VAE:
    """Its VAE with a Bernoulli decoder; widths from the data to z."""
    config = pythae.models.VAEConfig(input_dim=(widths[0],), latent_dim=widths[-1], reconstruction_loss="bce")
    return pythae.models.VAE(config, encoder=_Encoder(widths), decoder=_Decoder(widths[::-1]))


class Model(nn.Module):
    """Pythae's decoder as a Pyro program: z ~ Normal(0, I); x | z ~ Bernoulli."""

    def __init__(self, vae: pythae.models.VAE) -> None:
        super().__init__()
        self.latent = vae.latent_dim
        self.decoder = vae.decoder

    def forward(self, x: Tensor) -> None:
        """The generative story."""
        with pv.data_plate(len(x), x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent), 1.0).to_event(1))
            logits = self.decoder.layers(z).unflatten(-1, x.shape[1:])
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)


class Guide(nn.Module):
    """Pythae's encoder as a Pyro program."""

    def __init__(self, vae: pythae.models.VAE) -> None:
        super().__init__()
        self.encoder = vae.encoder

    def forward(self, x: Tensor) -> None:
        """Its posterior of z."""
        found = self.encoder(x.flatten(1))
        with pv.data_plate(len(x), x):
            pyro.sample("z", dist.Normal(found.embedding, (0.5 * found.log_covariance).exp()).to_event(1))


class _Binarized(BaseDataset):
    """Rows as 0 and 1, drawn anew at every visit."""

    def __getitem__(self, index: int) -> DatasetOutput:
        return DatasetOutput(data=torch.bernoulli(self.data[index]), labels=self.labels[index])


class _Encoder(BaseEncoder):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = _layers([*widths[:-1], 2 * widths[-1]])

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class _Decoder(BaseDecoder):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = _layers(widths)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
