"""Kernels of infinitely wide networks: a network described once, NNGP and NTK in float64."""

from bayesnet.kernels.activations import ACTIVATIONS
from bayesnet.kernels.empirical import empirical_nngp, empirical_ntk
from bayesnet.kernels.finite import WideNetwork
from bayesnet.kernels.images import AveragePool, Conv, Flatten, GlobalAveragePool, Image
from bayesnet.kernels.layers import Activation, Dense, LayerNorm
from bayesnet.kernels.matrices import kernel_matrix, kernel_matvec
from bayesnet.kernels.process import NNGP, NTK, InfiniteNetwork
from bayesnet.kernels.serial import Residual, Serial

__all__ = [
    "ACTIVATIONS",
    "NNGP",
    "NTK",
    "Activation",
    "AveragePool",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalAveragePool",
    "Image",
    "InfiniteNetwork",
    "LayerNorm",
    "Residual",
    "Serial",
    "WideNetwork",
    "empirical_nngp",
    "empirical_ntk",
    "kernel_matrix",
    "kernel_matvec",
]
