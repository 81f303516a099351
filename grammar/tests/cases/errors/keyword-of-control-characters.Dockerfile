FROM alpine
[31mRUN x
