FROM alpine
INCLUDE other.Dockerfile
