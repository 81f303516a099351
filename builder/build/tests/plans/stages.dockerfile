ARG VERSION=3
ARG GIVEN=default
FROM alpine:${VERSION} AS Build
ARG GIVEN
ARG OTHER=x
WORKDIR /src
COPY --chown=1:2 a b ./
RUN --mount=type=cache,target=/c make $GIVEN

FROM unused AS unused
RUN never

FROM scratch
COPY --from=build /src/out /out
COPY --from=0 --link /etc/passwd /etc/
USER 1000:1000
ENTRYPOINT ["/out"]
