# The demo with the models of pretrained/; it writes nowhere but in /tmp.
#   docker build --tag xray_hf .
#   docker run --rm --read-only --tmpfs /tmp --publish 7860:7860 xray_hf
FROM python:3.11-slim
WORKDIR /app

# What changes least comes first, so that a new model or a line of code does not install all of it again.
COPY requirements-demo.txt ./
RUN pip install --no-cache-dir --requirement requirements-demo.txt
COPY pretrained pretrained
COPY LICENSE app.py ./
COPY xray_hf xray_hf
# Once and for all: later nobody may write here.
RUN python -m compileall -q app.py xray_hf

# A number, for orchestrators that refuse root by it; without an account it needs a home, for the Hub's cache.
USER 1000
ENV HOME=/tmp GRADIO_SERVER_NAME=0.0.0.0
EXPOSE 7860
HEALTHCHECK --start-period=60s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# Not by way of a shell, which would keep SIGTERM to itself: running answers are finished first.
CMD ["python", "app.py"]
