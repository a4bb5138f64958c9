"""Exceptions of this package.

::

    ModelError
    ├── CheckpointError              a checkpoint cannot be used: file, expected, found
    ├── RequestError                 an argument of `predict` is out of range
    └── ImageError                   an image cannot be read
        ├── UnsupportedFormatError   not one of the accepted formats
        ├── ImageTooLargeError       more pixels than allowed, according to its header
        └── CorruptImageError        empty, truncated or damaged
"""


class ModelError(Exception):
    """Base class of this package's exceptions."""


class CheckpointError(ModelError):
    """A checkpoint cannot be used."""


class RequestError(ModelError, ValueError):
    """An argument of a prediction is out of range.

    Attributes:
        parameter: Name of the argument.
    """

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class ImageError(ModelError, ValueError):
    """An image cannot be read."""


class UnsupportedFormatError(ImageError):
    """The bytes are not one of the accepted image formats."""


class ImageTooLargeError(ImageError):
    """The header declares more pixels than allowed; nothing is decoded."""


class CorruptImageError(ImageError):
    """The image is empty, truncated or damaged."""
