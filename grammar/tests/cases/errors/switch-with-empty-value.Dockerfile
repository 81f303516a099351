FROM alpine
COPY --link= src dst
