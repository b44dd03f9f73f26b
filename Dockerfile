# Tidemill in a container: `docker build -t tidemill .`, then `docker run --rm -it tidemill` for the SQL shell.
# Needs BuildKit (the default of current Docker) for the cache mounts, which keep a second build short.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --no-install-recommends -y build-essential perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /tidemill
COPY Cargo.toml Cargo.lock ./
COPY benches ./benches
COPY data ./data
COPY queries ./queries
COPY src ./src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/tidemill/target \
    cargo build --release --locked --bin tidemill \
    && cp target/release/tidemill /usr/local/bin/tidemill

FROM debian:bookworm-slim
# The certificates are for brokers behind TLS.
RUN apt-get update \
    && apt-get install --no-install-recommends -y ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 tidemill
COPY --from=build /usr/local/bin/tidemill /usr/local/bin/tidemill
COPY queries /queries
USER tidemill
WORKDIR /home/tidemill
# Ends a job cleanly: what was read and fired is on the output topic.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidemill"]
