mkdir -p t/x && echo 1 > t/x/y && chmod 711 t/x && tar -cf t.tar -C t x && rm -r t
