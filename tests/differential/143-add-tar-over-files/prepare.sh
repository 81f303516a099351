mkdir -p t/x && echo 1 > t/x/y && chmod 755 t/x && tar -cf t.tar -C t x && rm -r t
