# Stage one: teacher features into a cache. From the repository's root:
#   docker build --file docker/cache.Dockerfile --tag difom-cache .
#   docker run --gpus all --volume /data:/data:ro --volume /feats:/feats --volume /weights:/weights:ro \
#     difom-cache extract --teacher sam --weights /weights/sam --data /data --cache /feats
# /data, /weights and /feats are mounted; /feats must be writable for user 1000.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    python3=3.12.* python3-venv=3.12.* \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/difom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    HF_HOME=/weights/hub

WORKDIR /src
COPY . .
RUN python3 -m venv /opt/difom \
    && /opt/difom/bin/pip install --constraint constraints.txt '.[onnx,cluster]'

RUN userdel --remove ubuntu && useradd --uid 1000 --create-home difom
USER 1000:1000
WORKDIR /home/difom

HEALTHCHECK --interval=60s --timeout=20s CMD ["difom-cache", "--help"]
ENTRYPOINT ["difom-cache"]
CMD ["--help"]
