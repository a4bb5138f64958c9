"""What errors may say: the examples of the OpenAPI document, by status and name.

Tests hold them against what the service says.
"""

from service.errors import FAULT

__all__ = ["INFERENCE_ERRORS", "PROBLEMS"]

PROBLEMS: dict[int, dict[str, str]] = {
    401: {"key": "The key is missing or wrong; send it as 'Authorization: Bearer <key>'."},
    403: {
        "no key": "Reloading needs a key, and this service was started without MNN_API_KEY.",
    },
    404: {
        "no report": "There is no report on this model. `python -m training.evaluate CHECKPOINT` "
        "writes it beside the checkpoint.",
    },
    408: {"slow body": "The body did not arrive within 10 s; send it faster or smaller."},
    409: {
        "damaged file": "The old model is served still: digits.safetensors: not a whole "
        "safetensors file with metadata: it is truncated, damaged or of another kind "
        "(SafetensorError)",
    },
    413: {
        "body": "The body has 20,971,706 bytes; at most 10,551,296 are allowed. Send less at once.",
        "pixels": "The picture has 9,000 × 9,000 pixels, more than 25,000,000 in all. Send a "
        "smaller picture.",
        "files": "65 files, allowed are 64; send several batches.",
    },
    415: {
        "text": "Not a picture in one of the accepted formats (PNG, JPEG, WEBP, BMP, GIF, TIFF). "
        "Send PNG, JPEG, WebP, BMP, GIF or TIFF.",
    },
    422: {
        "no file": "The part 'file' is missing or not a file: send multipart/form-data with the "
        "picture in it.",
        "empty file": "The file is empty. Send the whole picture file in the part 'file'.",
        "parameter": "Samples must be from 2 to 100, not 101.",
    },
    429: {
        "queue": "1,026 pictures are waiting and 1,024 may; try again after the seconds in "
        "Retry-After.",
        "bytes": "Too many bytes are being uploaded at this moment; try again after the seconds in "
        "Retry-After.",
    },
    500: {"fault": FAULT},
    503: {
        "loading": "The model is being loaded; try again in a second.",
        "stopping": "The service is about to stop; ask another one, or try again in a few seconds.",
    },
    504: {
        "late": "Not answered within 10 s; try again later, or ask for fewer samples.",
    },
}
"""What the `detail` of a problem may be, by status and name of the example."""

INFERENCE_ERRORS: dict[int, dict[str, str]] = {
    400: {
        "no JSON": "The body is not the JSON of an inference request: Expecting value. If tensors "
        "follow it, Inference-Header-Content-Length must say how many bytes of it are JSON.",
    },
    401: PROBLEMS[401],
    404: {"another model": "There is no model 'letters'; there is 'digits'."},
    408: PROBLEMS[408],
    413: {"images": "513 images are more than 512; send several requests."},
    415: {"brotli": "The Content-Encoding 'br' is not read here; use gzip, deflate or none."},
    422: {"parameter": "Samples must be from 2 to 100, not 101."},
    429: PROBLEMS[429],
    500: PROBLEMS[500],
    503: PROBLEMS[503],
    504: PROBLEMS[504],
}
"""What the `error` of an error of the Open Inference Protocol may be."""
