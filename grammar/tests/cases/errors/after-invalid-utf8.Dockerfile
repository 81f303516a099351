FROM alpine
# café
ENV A=ÿþ B
