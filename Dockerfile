# keras-medseg and `python -m experiments` in a container; docs/start.md has the commands.
#   docker build --tag keras-medseg .
#   docker build --tag keras-medseg:cuda --build-arg EXTRAS=cuda .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# Extras of setup.cfg, with commas: cuda brings TensorFlow's own CUDA libraries, so that the host needs
# the driver alone.
ARG EXTRAS=""

WORKDIR /opt/keras_medseg
COPY LICENSE README.md setup.cfg setup.py ./
COPY keras_medseg keras_medseg
COPY experiments experiments
RUN pip install --no-cache-dir --editable ".${EXTRAS:+[$EXTRAS]}"

# Whoever --user names has no home; the papers' experiments are found from any folder.
ENV KERAS_HOME=/tmp/keras \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONPATH=/opt/keras_medseg

RUN useradd --create-home medseg && install --directory --owner=medseg /data
USER medseg
WORKDIR /data
ENTRYPOINT ["keras-medseg"]
CMD ["--help"]
