FROM alpine
COPY --recursive src dst
