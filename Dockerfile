# One image for every Chorus process; docker-compose.yml says which process a container is.
# The same Python as the tests'. docs/deploy.md tells how to build and run it.

FROM python:3.11-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/chorus
ENV PATH=/opt/chorus/bin:$PATH
WORKDIR /build

# More arguments for the installation of torch alone, such as the index of its CPU builds.
ARG PIP_ARGS=""
# torch first and by itself, as in the Makefile: with it installed nothing asks for
# another build, and a change in the source does not install it again.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${PIP_ARGS} torch

COPY pyproject.toml README.md LICENSE ./
COPY bot bot
COPY plugins plugins
COPY connectors connectors
RUN pip install --constraint constraints.txt .


FROM python:3.11-slim-bookworm

# A new named volume takes its owner from the folder it is mounted on.
RUN groupadd --gid 10001 chorus \
 && useradd --uid 10001 --gid chorus --no-create-home --home-dir /srv/chorus \
            --shell /usr/sbin/nologin chorus \
 && install --directory --owner=chorus --group=chorus /srv/chorus/.chorus /cache
COPY --from=build /opt/chorus /opt/chorus

# Models go to /cache/chorus/models. Whatever else a library wants to write at home may
# be lost with the container.
ENV PATH=/opt/chorus/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    HOME=/tmp
# From here config/bot.yaml and the data folder .chorus are where Chorus looks for them.
WORKDIR /srv/chorus
USER 10001:10001

# In exec form, so that SIGTERM reaches Chorus and not a shell.
ENTRYPOINT ["chorus"]
CMD ["run"]
