FROM alpine debian
