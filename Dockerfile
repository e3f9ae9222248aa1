# fw in a container; the working folder /work holds recipes, data and runs.
#
#   docker build -t fw .                                                  for CPUs
#   docker build -t fw --build-arg TORCH_INDEX=https://pypi.org/simple .  for GPUs: PyTorch brings CUDA
#   docker run --rm -v "$PWD:/work" fw run my_recipe.yaml                 (--gpus all; --user "$(id -u)")
#
# BASE may be any image of Debian or Ubuntu with Python 3.11 or newer in it or among its packages,
# such as one of nvidia/cuda with Ubuntu 24.04, where a site wants CUDA's own tools beside.

ARG BASE=python:3.11-slim
FROM ${BASE}

# A C compiler is what torch.compile needs on a GPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && { command -v python3 || apt-get install --yes --no-install-recommends python3 python3-dev python3-venv; } \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/fw
ENV PATH=/opt/fw/bin:$PATH

# PyTorch is most of the image and seldom changes: a layer of its own, before fw.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url "${TORCH_INDEX}" --constraint constraints.txt torch torchvision

ARG EXTRAS=hub,pretrained
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY plugins plugins
COPY recipes recipes
COPY registry registry
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url "${TORCH_INDEX}" --constraint constraints.txt ".[${EXTRAS}]"

# Whoever runs it, as --user says, can write to the home and the cache.
RUN useradd --create-home --uid 1000 --non-unique fw \
    && mkdir --parents /work /cache \
    && chmod 1777 /home/fw /work /cache
ENV HOME=/home/fw \
    FW_CACHE_DIR=/cache/fw \
    HF_HOME=/cache/huggingface \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER fw
WORKDIR /work
ENTRYPOINT ["fw"]
CMD ["--help"]
