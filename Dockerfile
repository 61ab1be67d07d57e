# The lab for Binder, JupyterHub and `docker run`; docs/hub.md says how to use it.
# Binder asks for a tag that is not `latest`, for the user below, and for no ENTRYPOINT.
FROM python:3.11-slim-bookworm

# g++: torch.compile makes code with it. The headers of Python are in this image.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG NB_USER=jovyan
ARG NB_UID=1000
# SHELL is what JupyterLab opens as a terminal.
ENV USER=${NB_USER} NB_UID=${NB_UID} HOME=/home/${NB_USER} SHELL=/bin/bash
RUN useradd --create-home --shell /bin/bash --uid ${NB_UID} ${NB_USER}

# Not in the home folder: many hubs put the learner's own volume over that.
WORKDIR /opt/labkit
COPY pyproject.toml constraints.txt LICENSE ./

# torch first and alone, as in the Makefile; the build without CUDA is a tenth of the size.
ARG TORCH_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
RUN python -m pip install --no-cache-dir --constraint constraints.txt ${TORCH_ARGS} torch \
    && python -c "import torch; assert torch.version.cuda is None, 'a build of torch for CUDA'"

# The version of JupyterHub has to be the hub's. Binder asks for `notebook`.
ARG JUPYTERHUB_VERSION=6.1.1
ARG NOTEBOOK_VERSION=7.6.5
RUN python -m pip install --no-cache-dir --constraint constraints.txt \
    jupyterhub==${JUPYTERHUB_VERSION} notebook==${NOTEBOOK_VERSION}

COPY labkit labkit
# Learners cannot write here: what is not compiled now is compiled again by each of their processes.
RUN python -m pip install --no-cache-dir --constraint constraints.txt \
    --editable '.[quantize,prune,cluster]' \
    && python -m compileall -q labkit

COPY README.md ./
COPY docs docs
COPY data data
COPY notebooks notebooks
COPY teacher teacher
# Files come with the rights of the checkout, which a strict umask keeps from everybody else.
RUN chmod -R a+rX . \
    && cp -r README.md docs data notebooks teacher ${HOME}/ && chown -R ${NB_UID} ${HOME}

USER ${NB_UID}
WORKDIR ${HOME}

# What does not depend on the machine that will run it: a broken image is not worth pushing.
RUN labkit doctor \
    --only python packages extras folders network compiler fonts widgets kernel worker \
    && rm -f /tmp/labkit-*

# A hub says who it is by a token; without one this is somebody's own computer.
CMD ["sh", "-c", "if [ -n \"$JUPYTERHUB_API_TOKEN\" ]; then exec jupyterhub-singleuser; else exec jupyter lab --ip=0.0.0.0 --no-browser; fi"]
