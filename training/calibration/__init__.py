"""Calibration of the decision rule and of the conformal sets."""
