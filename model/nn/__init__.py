"""Bayesian layers and the network, in PyTorch."""

from model.nn.layers import AffineWeights, BayesianConv2d, BayesianLinear, gaussian_kl
from model.nn.network import BayesianCNN

__all__ = ["AffineWeights", "BayesianCNN", "BayesianConv2d", "BayesianLinear", "gaussian_kl"]
