FROM alpine
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=x --network=none --security=sandbox --device=vendor/a -- --weird
RUN --mount="type=bind,target=/a b" --mount=type=bind,target='/c d' true
