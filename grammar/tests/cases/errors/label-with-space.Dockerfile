FROM alpine
LABEL title=The quick fox
