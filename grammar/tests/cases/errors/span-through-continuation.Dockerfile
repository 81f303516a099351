FROM alpine
COPY --chown=app:app \
  # the sources
  --lnik \
  src dst
