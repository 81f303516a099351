FROM trigger/base
MAINTAINER Somebody <s@example.org>
ENV A=1 B=$BASE
ENV A=2 C=$A
LABEL "key with space"="v" plain=$C
EXPOSE 80 53/udp 8000-8001
VOLUME /data /more
VOLUME ["/json"]
USER app
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-ec"]
HEALTHCHECK --interval=5m --retries=3 CMD wget localhost
CMD echo hi
ENTRYPOINT exec top
ONBUILD RUN later
