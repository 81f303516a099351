FROM alpine
COPY <<one <<-two /dst/
1
one
	tw
