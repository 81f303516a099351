FROM alpine
RUN <<EOF
echo one
  EOF
