"""The served model: loading it, and replacing it when the checkpoint changes."""
