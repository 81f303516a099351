FROM alpine
ONBUILD COPY --fom=x \
   a b
