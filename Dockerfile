# keras-medseg in a container; docs/start.md has the commands.
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
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"

# Whoever --user names has no home, and Keras and Matplotlib want one.
ENV HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN install --directory --owner=1000 /data
USER 1000
WORKDIR /data
ENTRYPOINT ["keras-medseg"]
CMD ["--help"]
