"""Datasets: MNIST and others, their parts, preprocessing, labelled folders."""
