"""Exceptions of this package."""


class ModelError(Exception):
    """Base class of this package's exceptions."""


class CheckpointError(ModelError):
    """A checkpoint cannot be used; the message names file, expected and found."""


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
