FROM alpine
RUN one \
  two
COPY <<EOF /x
line
EOF
CMD ["a"]
