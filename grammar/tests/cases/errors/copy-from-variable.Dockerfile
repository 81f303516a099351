FROM alpine
ARG STAGE=builder
COPY --from=$STAGE /a /b
