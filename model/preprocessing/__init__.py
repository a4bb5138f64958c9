"""Preprocessing: from an image file or an array to the 28×28 input of the network."""
