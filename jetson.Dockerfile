# The pipeline on a Jetson, as a daemon, without root.
#
#   docker build -f jetson.Dockerfile -t perception .                             JetPack 7.2, Orin and Thor
#   docker build -f jetson.Dockerfile -t perception --build-arg JETPACK=6.2 .     JetPack 6.2, Orin
#
#   docker run --runtime nvidia --network host --init --restart unless-stopped \
#       --ulimit rtprio=50 --ulimit memlock=-1 --device /dev/video0 --group-add "$(getent group render | cut -d: -f3)" \
#       --volume /etc/perception:/etc/perception:ro --volume perception:/var/lib/perception perception
#
# It runs /etc/perception/vehicle.yaml, or what CONFIG names. The engine is built on the device when the container first
# starts, minutes long, and kept in the volume: none is in the image, since a plan runs on the GPU that it was built on.
#
# Not verified: this file passes its linter, and every name in it was looked up, but it has been built on no machine yet.
#
# Where the names come from:
# - nvcr.io/nvidia/l4t-jetpack:r36.4.0 holds JetPack 6.2's CUDA 12.6 and TensorRT 10.3, on Ubuntu 22.04 with Python 3.10.
#   There is no l4t-jetpack for JetPack 7. nvcr.io/nvidia/tensorrt:26.05-py3 (SBSA) has the CUDA 13.2 and TensorRT 10.16 of
#   JetPack 7.2, on Ubuntu 24.04 with Python 3.12. Both from public projects that run them on Orin, and NVIDIA's release
#   notes of 26.05 (CUDA 13.2.1); that TensorRT's Python bindings are in the image, from what it prints when it starts.
# - Packages of Ubuntu: the same names as Debian's, which were looked up in its index. NVIDIA's own GStreamer plugins, for
#   CSI cameras, are not among them: V4L2, USB and RTSP cameras need none.
# - Python packages: every one in requirements.lock has aarch64 wheels for Python 3.10 and glibc 2.35 (Ubuntu 22.04), and
#   for Python 3.12; PyCUDA has none and is compiled here, as its metadata asks; the versions below are on PyPI.
# - DALI's wheels for aarch64 hold sm_75, 80, 90, 100, 110 (Thor) and 120, and none sm_87 (Orin), by cuobjdump. For Orin
#   DALI's own builder makes one (its docs/compilation.rst), to be handed over as a build context:
#
#       git clone --recursive --branch v2.4.0 https://github.com/NVIDIA/DALI && cd DALI/docker
#       ARCH=aarch64 CUDA_VERSION=13.2 CUDA_TARGET_ARCHS=87 ./build.sh
#       docker build -f jetson.Dockerfile -t perception --build-context dali=DALI/wheelhouse .
#
#   The config then has to ask for it with preprocess: dali, as `auto` on Orin takes the kernel.
ARG JETPACK=7.2

FROM nvcr.io/nvidia/tensorrt:26.05-py3 AS jetpack-7.2
ENV KERNELS_FOR="--arch sm_87 --arch sm_110" CUDA_BINDINGS=13.2.0 DALI=nvidia-dali-cuda130==2.4.0

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0 AS jetpack-6.2
ENV KERNELS_FOR="--arch sm_87" CUDA_BINDINGS=12.8.0 DALI=

# Empty; --build-context dali=FOLDER puts a wheel of DALI here.
FROM scratch AS dali

# hadolint ignore=DL3006
FROM jetpack-${JETPACK} AS system
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gir1.2-gst-plugins-base-1.0 \
        gstreamer1.0-plugins-bad \
        gstreamer1.0-plugins-base \
        gstreamer1.0-plugins-good \
        python3-gi \
        python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM system AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
# NVIDIA's images may constrain pip; here the lock does.
ENV PATH=/opt/perception/.venv/bin:/usr/local/cuda/bin:$PATH PIP_CONSTRAINT= PIP_NO_CACHE_DIR=1
WORKDIR /opt/perception
COPY requirements.lock ./
# TensorRT's bindings are the system's.
RUN python3 -m venv --system-site-packages .venv \
    && pip install --require-hashes --only-binary :all: --requirement requirements.lock \
    && pip install "cuda-bindings==${CUDA_BINDINGS}" "pycuda==2026.1"
# hadolint ignore=DL3013
RUN --mount=type=bind,from=dali,target=/dali \
    set -- /dali/*.whl; \
    if [ -e "$1" ]; then pip install "$@"; elif [ -n "$DALI" ]; then pip install "$DALI"; fi
COPY perception perception
COPY engines engines
COPY configs configs
COPY launch/entrypoint.sh launch/
# hadolint ignore=SC2086
RUN python -m perception.cuda.cubins $KERNELS_FOR --out kernels && chmod -R a+rX kernels

FROM system
LABEL org.opencontainers.image.title="perception" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --create-home --home-dir /var/lib/perception --groups video --shell /usr/sbin/nologin perception
COPY --from=build /opt/perception /opt/perception
ENV PATH=/opt/perception/.venv/bin:$PATH PYTHONPATH=/opt/perception PYTHONUNBUFFERED=1 \
    CONFIG=/etc/perception/vehicle.yaml
USER 10001
# Relative output paths are in the volume; launch/entrypoint.sh has plans kept there too.
WORKDIR /var/lib/perception
VOLUME /var/lib/perception
# health.port of the config; an engine takes minutes to build. Not more often: each look starts an interpreter beside
# the ticks.
HEALTHCHECK --start-period=20m --interval=30s --timeout=5s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9610/healthz', timeout=2)"]
ENTRYPOINT ["/opt/perception/launch/entrypoint.sh"]
