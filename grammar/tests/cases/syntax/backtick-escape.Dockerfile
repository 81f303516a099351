# escape=`
FROM alpine
COPY a C:\dir\
RUN one `
  two
ENV A=a` b B="x`"y"
