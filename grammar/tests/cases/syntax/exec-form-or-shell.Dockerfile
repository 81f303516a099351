FROM alpine
CMD []
CMD ["a", "b c"]
CMD ["a",]
CMD [ "$A" = b ] && true
CMD ["a"] b
CMD ["\x"]
CMD [1, 2]
