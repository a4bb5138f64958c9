"""Inference engines: 28×28 inputs to the logits of every posterior draw."""
