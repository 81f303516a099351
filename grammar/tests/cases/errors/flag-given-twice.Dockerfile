FROM alpine
COPY --chown=a --chown=b src dst
