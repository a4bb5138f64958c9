# Three images: `service` (CPU), `service-cuda`, `training`; docker-compose.yml builds and runs them.
# What seldom changes stands first: a change of the sources rebuilds the last layer alone.
ARG PYTHON=3.12

# What the images share: a user without a name, two folders of that user's (so that a named volume
# first mounted there is that user's, too, whichever container comes first), and how to serve.
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
COPY requirements /build/requirements/
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

# PyTorch for a CPU. Its builds there are numbered 2.15.0+cpu, which pip prefers to the plain 2.15.0 of
# its usual index. Without an index (TORCH_INDEX=) that one is taken: it brings CUDA along, works on a
# CPU and is several times as large.
FROM base AS torch-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement /build/requirements/torch.txt

# PyTorch with CUDA.
FROM base AS torch-cuda
ARG TORCH_INDEX=
RUN pip install --no-cache-dir --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement /build/requirements/torch.txt


# No PyTorch: a CPU is served by ONNX Runtime. (What `onnx` brings to test itself is a third of it.)
FROM base AS service
RUN pip install --no-cache-dir --constraint /build/constraints.txt \
        --requirement /build/requirements/model.txt --requirement /build/requirements/service.txt \
    && pip uninstall --yes pip \
    && rm -r /usr/local/lib/python*/site-packages/onnx/backend/test
COPY --from=package /package /usr/local/
USER 10001:10001


FROM torch-cuda AS service-cuda
RUN pip install --no-cache-dir --constraint /build/constraints.txt \
        --requirement /build/requirements/model.txt --requirement /build/requirements/service.txt \
    && pip uninstall --yes pip
COPY --from=package /package /usr/local/
USER 10001:10001


FROM torch-cpu AS training
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint /build/constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torchvision \
    && pip install --no-cache-dir --constraint /build/constraints.txt \
        --requirement /build/requirements/model.txt --requirement /build/requirements/training.txt \
    && pip uninstall --yes pip
COPY --from=package /package /usr/local/
# The report's figures: matplotlib keeps what it knows of fonts where this user may write.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training.run"]
