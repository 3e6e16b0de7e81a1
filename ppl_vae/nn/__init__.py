"""Networks: declarations of functions from one shape to another."""

from ppl_vae.nn.base import Batched, Network
from ppl_vae.nn.causal import CausalNetwork
from ppl_vae.nn.causal_conv import CausalConv
from ppl_vae.nn.conv import Conv
from ppl_vae.nn.linear import Linear
from ppl_vae.nn.lstm import LSTM
from ppl_vae.nn.made import MADE
from ppl_vae.nn.mlp import MLP
from ppl_vae.nn.pixel_cnn import PixelCNN
from ppl_vae.nn.transformer import Transformer

__all__ = [
    "LSTM",
    "MADE",
    "MLP",
    "Batched",
    "CausalConv",
    "CausalNetwork",
    "Conv",
    "Linear",
    "Network",
    "PixelCNN",
    "Transformer",
]
