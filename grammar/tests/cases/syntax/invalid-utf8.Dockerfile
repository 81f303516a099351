FROM alpine
RUN printf "ÿ" \
  && echo café
COPY <<EOF /x
€
EOF
