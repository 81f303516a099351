FROM \
  alpine
RUN one \  
  # comment \

  two \
#x
  three
LABEL a=1 \
      b="two \
  lines" \
      c=3
RUN last \