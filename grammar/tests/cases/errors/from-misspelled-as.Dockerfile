FROM alpine SA builder
