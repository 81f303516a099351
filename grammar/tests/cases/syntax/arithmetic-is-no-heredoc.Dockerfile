FROM alpine
RUN echo $((1 << 2)) && cat <<<word
RUN x="<<EOF" true
