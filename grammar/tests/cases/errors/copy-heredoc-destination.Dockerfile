FROM alpine
COPY a.txt <<EOF
x
EOF
