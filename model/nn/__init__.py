"""The Bayesian layers and the network, in PyTorch."""
