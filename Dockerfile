# docker build -t adadedup_mm .
# docker run --gpus all --shm-size 8g -v /path/to/data:/adadedup_mm/data -it adadedup_mm
FROM pytorch/pytorch:2.1.2-cuda12.1-cudnn8-devel

# The image's own Python is older than 3.11.
RUN conda create -y -p /opt/python3.11 python=3.11 && conda clean -afy

WORKDIR /adadedup_mm
COPY . .
ENV FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="7.0 7.5 8.0 8.6 9.0+PTX" PIP_NO_CACHE_DIR=1
RUN PYTHON=/opt/python3.11/bin/python bash tools/setup_env.sh && rm -rf ~/.cache

ENV PATH=/adadedup_mm/.venv/bin:$PATH
