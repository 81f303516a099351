FROM alpine
HEALTHCHECK --timeout=30 CMD true
