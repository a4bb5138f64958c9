"""The same answers with a plain FastAPI route around a loop over the draws."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, UploadFile

from benchmarks.serving.peers.common import PORT, WORKERS, Reader


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.reader = Reader()
    yield


app = FastAPI(lifespan=_lifespan)


@app.post("/predict")
def predict(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """Answer one file; not `async`, so Starlette runs it in its thread pool."""
    reader: Reader = app.state.reader
    return reader.answer(file.file.read())


@app.get("/health")
def health() -> str:
    """200 once the model is loaded."""
    return "ready"


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving.peers.fastapi_loop:app",
        port=PORT, workers=WORKERS, log_level="warning",
    )  # fmt: skip
