"""An evaluation as one HTML file that needs nothing else."""

from training.reporting.html.report import write_report

__all__ = ["write_report"]
