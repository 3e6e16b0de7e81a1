from .base import Batched, Network, TimedNetwork
from .causal import CausalNetwork
from .causal_conv import CausalConv
from .conv import Conv
from .linear import Linear
from .lstm import LSTM
from .made import MADE
from .mlp import MLP
from .pixel_cnn import PixelCNN
from .transformer import Transformer
from .unet import UNet

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
    "TimedNetwork",
    "Transformer",
    "UNet",
]
