FROM alpine
COPY --form=builder /out /out
