FROM alpine
HEALTHCHECK --start-period=900us CMD true
