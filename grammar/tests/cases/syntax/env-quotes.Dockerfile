FROM alpine
ENV A="a=b c" 'B'='d "e"' C=f\"g D= E=""
ENV "weird key" value
ENV open "quote
LABEL a b=c
