FROM alpine
RUN make
COPPY a b
