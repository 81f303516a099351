FROM alpine
RNU make install
