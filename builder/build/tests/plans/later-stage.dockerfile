FROM busybox AS first
COPY --from=later /x /x
FROM busybox AS later
FROM first
