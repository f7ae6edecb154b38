# One image for head, workers, MLflow server and job submitter.
#   docker build -t unigeoseg .                                  GPU: the CUDA libraries come with torch's wheels
#   docker build -t unigeoseg:cpu --build-arg DEVICE=cpu \
#     --build-arg TORCH_INDEX=URL .                              CPU: torch from an index of CPU wheels, no CUDA libraries
FROM python:3.11.14-slim-bookworm

ARG DEVICE=gpu
ARG TORCH_INDEX=

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# wget: KubeRay's own probes call it. g++: torch.compile and DeepSpeed's operators are built where they run.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ wget \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 1000 --create-home --shell /bin/bash ray \
    && install -d -o ray -g ray /app /opt/venv
USER 1000
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

COPY --chown=ray:ray constraints.txt pyproject.toml README.md LICENSE ./
COPY --chown=ray:ray unigeoseg unigeoseg
COPY --chown=ray:ray pipelines pipelines
COPY --chown=ray:ray jobs jobs
COPY --chown=ray:ray cluster cluster

# The CPU image pins all but CUDA's packages, and takes torch from the given index.
RUN python -m venv /opt/venv \
    && case "$DEVICE" in \
         gpu) cp constraints.txt /tmp/pins.txt ;; \
         cpu) grep -vE '^(nvidia-|cuda-|triton|torch=|torchvision=)' constraints.txt > /tmp/pins.txt; \
              test -n "$TORCH_INDEX" || { echo "DEVICE=cpu needs TORCH_INDEX, an index of CPU wheels of torch" >&2; exit 2; }; \
              grep -E '^(torch|torchvision)==' constraints.txt > /tmp/torch.txt; \
              pip install --index-url "$TORCH_INDEX" -r /tmp/torch.txt ;; \
         *) echo "DEVICE=$DEVICE: cpu or gpu" >&2; exit 2 ;; \
       esac \
    && pip install -c /tmp/pins.txt -e ".[server,map,app]" \
    && rm -f /tmp/pins.txt /tmp/torch.txt

# A head by hand: docker run unigeoseg ray start --head --block
CMD ["unigeoseg", "--help"]
