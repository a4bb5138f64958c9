"""Fitting the posterior by stochastic variational inference."""
