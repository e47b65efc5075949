# The demo with the models of pretrained/; it writes to /tmp only.
#   docker build --tag xray_hf .
#   docker run --rm --read-only --tmpfs /tmp --publish 7860:7860 xray_hf
FROM python:3.11-slim
WORKDIR /app

# What changes least comes first, so that a new model or a change of code does not reinstall the packages.
COPY requirements-demo.txt ./
RUN pip install --no-cache-dir --requirement requirements-demo.txt
COPY pretrained pretrained
COPY LICENSE app.py ./
COPY xray_hf xray_hf
# Compiled now, since the container runs with a read-only root.
RUN python -m compileall -q app.py xray_hf

# A numeric id, by which orchestrators refuse root. It has no account, so HOME is set, for the Hub's cache.
USER 1000
ENV HOME=/tmp GRADIO_SERVER_NAME=0.0.0.0
EXPOSE 7860
HEALTHCHECK --start-period=60s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# Not through a shell, which would swallow SIGTERM: the demo finishes running answers before it stops.
CMD ["python", "app.py"]
