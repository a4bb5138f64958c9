"""The exceptions of this package, so that callers can tell them apart.

::

    ModelError
    ├── CheckpointError      a checkpoint cannot be used: which file, expected, found
    ├── RequestError         an argument of `predict` is out of its range
    └── ImageError         a picture cannot be read
        ├── UnsupportedFormatError   not one of the accepted formats
        ├── ImageTooLargeError     over the pixel limit, told from its header
        └── CorruptImageError      empty, truncated or damaged
"""

__all__ = [
    "CheckpointError",
    "CorruptImageError",
    "ImageError",
    "ImageTooLargeError",
    "ModelError",
    "RequestError",
    "UnsupportedFormatError",
]


class ModelError(Exception):
    """Base of everything this package raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint cannot be used."""


class RequestError(ModelError, ValueError):
    """An argument of a prediction is out of its range.

    Attributes:
        parameter: Name of the argument at fault.
    """

    def __init__(self, parameter: str, message: str) -> None:
        """Keep the name of the argument beside the message."""
        super().__init__(message)
        self.parameter = parameter


class ImageError(ModelError, ValueError):
    """A picture cannot be read."""


class UnsupportedFormatError(ImageError):
    """The bytes are not one of the accepted picture formats."""


class ImageTooLargeError(ImageError):
    """The picture has more pixels than allowed; told from its header, before decoding."""


class CorruptImageError(ImageError):
    """The picture is empty, truncated or damaged."""
