# Stage one: teacher features into a cache. From the repository's root:
#   docker build --file docker/cache.Dockerfile --tag difom-cache .
#   docker run --gpus all --volume /data:/data:ro --volume /feats:/feats --volume /weights:/weights:ro \
#     difom-cache extract --teacher sam --weights /weights/sam --data /data --cache /feats
# /data, /weights and /feats are mounted; /feats must be writable for user 1000.
# PyTorch brings its own CUDA, so any base with Debian's packages will do: --build-arg BASE=debian:12 --build-arg PYTHON=3.11.
# For CPUs alone: --build-arg BASE=ubuntu:24.04 --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04
FROM ${BASE}

# The base's: Ubuntu 24.04 has 3.12, Debian 12 has 3.11.
ARG PYTHON=3.12
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    "python3=${PYTHON}.*" "python3-venv=${PYTHON}.*" \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/difom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    HF_HOME=/weights/hub

WORKDIR /src
# The same lines as in the other file: both images share the layer with PyTorch, and a change of the code leaves it as it is.
ARG PIP_EXTRA_INDEX_URL
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/difom \
    && python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needed.txt \
    && /opt/difom/bin/pip install --constraint constraints.txt --requirement needed.txt

COPY . .
RUN /opt/difom/bin/pip install --constraint constraints.txt '.[onnx,cluster]'

RUN if id ubuntu; then userdel --remove ubuntu; fi && useradd --uid 1000 --create-home difom
USER 1000:1000
WORKDIR /home/difom

HEALTHCHECK --interval=60s --timeout=20s CMD ["difom-cache", "--help"]
ENTRYPOINT ["difom-cache"]
CMD ["--help"]
