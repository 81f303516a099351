FROM alpine
