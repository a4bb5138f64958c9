"""Reports of an evaluation: text tables, HTML, plots, contact sheets."""
