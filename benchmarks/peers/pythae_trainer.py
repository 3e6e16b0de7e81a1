"""pythae's ``VAE`` and ``BaseTrainer``, an epoch being its ``train_step``: its loop over its own DataLoader.

Left out, in its favour: the progress bar, logs, checkpoints, and the copy of the whole model that it keeps after every epoch
that is better than those before. Its networks are given the widths of ours; it takes the last layer's second half for the log
variance, not for the scale before softplus, and wants probabilities from the decoder, not logits.
"""

from __future__ import annotations

import logging
import tempfile

import pythae.models
import torch
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import Tensor

from benchmarks.peers.task import LEARNING_RATE, Report, Size, Task, run_epochs
from benchmarks.peers.torch_network import count, mlp

__all__ = ["parameters", "train"]


class Encoder(BaseEncoder):
    """x ``(B, D)`` to mean and log variance."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = mlp(size.data, size.hidden, 2 * size.latent)

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """The latent z ``(B, K)`` to probabilities of x, ``(B, D)``."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = mlp(size.latent, size.hidden, size.data)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


def vae(size: Size) -> pythae.models.VAE:
    """Its VAE with a Bernoulli decoder."""
    config = pythae.models.VAEConfig(input_dim=(size.data,), latent_dim=size.latent, reconstruction_loss="bce")
    return pythae.models.VAE(config, encoder=Encoder(size), decoder=Decoder(size))


def parameters(size: Size) -> int:
    """Numbers that are trained."""
    return count(vae(size))


def train(task: Task, report: Report) -> None:
    """Train by its trainer."""
    logging.disable()
    torch.manual_seed(0)
    rows = BaseDataset(torch.from_numpy(task.x), torch.zeros(len(task.x)))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=task.size.batch,
            learning_rate=LEARNING_RATE,
            no_cuda=task.device == "cpu",
        )
        trainer = BaseTrainer(vae(task.size), rows, training_config=config)
        trainer.prepare_training()
        trainer.callback_handler = CallbackHandler([TrainingCallback()], trainer.model)
        run_epochs(task, report, lambda: trainer.train_step(epoch=1))
