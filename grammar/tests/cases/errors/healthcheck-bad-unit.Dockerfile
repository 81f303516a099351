FROM alpine
HEALTHCHECK --interval=5sec CMD true
