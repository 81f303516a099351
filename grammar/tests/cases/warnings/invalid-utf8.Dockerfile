FROM alpine
RUN café
