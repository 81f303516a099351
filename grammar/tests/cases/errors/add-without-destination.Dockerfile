FROM alpine
ADD ["https://example.com/a.tar"]
