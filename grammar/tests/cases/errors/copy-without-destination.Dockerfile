FROM alpine
COPY package.json
