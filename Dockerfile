# Three images: `service` (CPU), `service-cuda`, `training`; docker-compose.yml builds and runs them.
# What changes seldom comes first: a change of the sources rebuilds only the last layer.
ARG PYTHON=3.12

# uv, which installs in a fraction of pip's time, and the lists of pyproject.toml as requirement files:
# base.txt, cuda.txt, training.txt and others.
FROM python:${PYTHON}-slim AS tools
WORKDIR /build
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt uv
COPY pyproject.toml ./
RUN python <<PYTHON
import pathlib, tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
for name, lines in {"base": project["dependencies"], **project["optional-dependencies"]}.items():
    pathlib.Path(f"{name}.txt").write_text("\n".join(lines))
PYTHON

# Common to the images: a user without a name, two folders of that user's (a named volume mounted
# there takes over the owner, whichever container comes first), and how to serve.
FROM python:${PYTHON}-slim AS base
LABEL org.opencontainers.image.title="Maybe Neural Network" \
      org.opencontainers.image.description="Reads a handwritten digit and says how sure it is" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
ENV PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MNN_HOST=0.0.0.0 \
    MNN_PORT=8000
WORKDIR /srv
RUN install --directory --owner=10001 --group=10001 checkpoints data
COPY constraints.txt /build/
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=0.5s \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['MNN_PORT']), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "service"]

# The sources as an installed, compiled package.
FROM base AS package
RUN pip install --no-cache-dir --constraint /build/constraints.txt setuptools
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY deploy/*.py deploy/
COPY model model/
COPY service service/
COPY training training/
RUN pip install --no-cache-dir --no-deps --no-build-isolation --no-index --prefix /package .

# PyTorch for a CPU. Its index numbers these builds 2.15.0+cpu, which counts as newer than the plain
# 2.15.0 of the usual index. Without an index (TORCH_INDEX=) the plain one is taken: it brings CUDA
# along, works on a CPU and is several times as large.
FROM base AS torch-cpu
COPY --from=tools /build/cuda.txt /build/
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=from=tools,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --system --no-cache --compile-bytecode --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--index "${TORCH_INDEX}" --index-strategy unsafe-best-match} \
        --requirement /build/cuda.txt

# PyTorch with CUDA.
FROM base AS torch-cuda
COPY --from=tools /build/cuda.txt /build/
ARG TORCH_INDEX=
RUN --mount=from=tools,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --system --no-cache --compile-bytecode --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--index "${TORCH_INDEX}" --index-strategy unsafe-best-match} \
        --requirement /build/cuda.txt


# No PyTorch: ONNX Runtime serves on a CPU. (A third of `onnx` is its own tests.)
FROM base AS service
COPY --from=tools /build/base.txt /build/
RUN --mount=from=tools,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --system --no-cache --compile-bytecode --constraint /build/constraints.txt \
        --requirement /build/base.txt \
    && uv pip uninstall --system pip \
    && rm -r /usr/local/lib/python*/site-packages/onnx/backend/test
COPY --from=package /package /usr/local/
USER 10001:10001


FROM torch-cuda AS service-cuda
COPY --from=tools /build/base.txt /build/
RUN --mount=from=tools,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --system --no-cache --compile-bytecode --constraint /build/constraints.txt \
        --requirement /build/base.txt \
    && uv pip uninstall --system pip
COPY --from=package /package /usr/local/
USER 10001:10001


FROM torch-cpu AS training
COPY --from=tools /build/base.txt /build/training.txt /build/
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=from=tools,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --system --no-cache --compile-bytecode --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--index "${TORCH_INDEX}" --index-strategy unsafe-best-match} \
        --requirement /build/base.txt --requirement /build/training.txt \
    && uv pip uninstall --system pip
COPY --from=package /package /usr/local/
# matplotlib caches fonts where this user may write.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training.run"]
