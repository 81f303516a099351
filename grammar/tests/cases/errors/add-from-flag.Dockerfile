FROM alpine
ADD --from=builder /out /out
