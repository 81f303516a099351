# syntax=docker/dockerfile:1
# escape=\
# check=skip=all

# VERSION of the base
ARG VERSION=3 NAME EMPTY=
FROM --platform=$BUILDPLATFORM alpine:${VERSION} AS Build
MAINTAINER Jo Doe <jo@example.com>
LABEL org.example.title="A \"fine\" thing" "with space"=x
ENV PATH=/opt/bin:$PATH GREETING="hello world" NAME=a\ b
ENV LEGACY the rest  of it
WORKDIR /src dir
USER app:${GROUP:-app}
EXPOSE 80 53/udp 8000-8010
VOLUME /data /cache
VOLUME ["/with space", "/b"]
STOPSIGNAL SIGTERM
SHELL ["/bin/bash", "-c"]
RUN make && \
    make install
RUN ["echo", "\u00e9\n"]
COPY --from=build --chown=1:2 --chmod=0644 --link --exclude=*.md --exclude=*.txt a b /dst/
COPY --parents=true --link=false ["a b", "/dst/"]
ADD --checksum=sha256:00 --keep-git-dir --unpack=false https://example.com/x.git#main /x
HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0 --start-interval=2s --retries=3 CMD curl -f localhost
HEALTHCHECK NONE
ENTRYPOINT ["/entry"]
CMD run --fast
ONBUILD RUN echo triggered
