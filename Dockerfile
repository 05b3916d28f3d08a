# percoin with its server: docker build -t percoin . && docker compose up
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /wheels /wheels
# pip picks a torch with GPU support, gigabytes more than a server on CPUs needs. Name another
# index in a pip.conf: docker build --secret id=pip,src=pip.conf -t percoin .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir -c /tmp/constraints.txt torch \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheels/percoin-*.whl)[serve,postgres,onnx,alerts]" \
    && useradd --create-home --uid 1000 percoin \
    && mkdir /percoin && chown percoin /percoin
USER percoin
# models, data and outputs lie here; mount a volume
WORKDIR /percoin
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["percoin"]
CMD ["serve"]
