FROM alpine
RUN <<EOF
#!/bin/sh
echo "$HOME"
EOF
RUN <<-"END" bash -e
	echo one
		echo two
	END
COPY <<a.txt <<d2 3<<d /dst/
A $X
a.txt
B
d2
d
ADD <<EOF /etc/motd
# not a comment \
EOF
RUN cat <<A - <<B
1
A
2
B
COPY << 'b c.txt' /dst/
spaced
b c.txt
ONBUILD RUN <<EOF
later
EOF
