FROM alpine
ENV NAME the value
LABEL title The thing
