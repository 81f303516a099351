FROM alpine
COPY --chown app src dst
