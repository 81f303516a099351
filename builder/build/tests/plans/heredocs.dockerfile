FROM busybox
ARG WHO=world
RUN <<EOF
echo $WHO
EOF
RUN <<EOF
#!/bin/busybox sh
echo script
EOF
RUN cat <<A >/a && cat <<"B" >/b
one
A
two
B
COPY <<one <<"two" /files/
$WHO
one
$WHO
two
