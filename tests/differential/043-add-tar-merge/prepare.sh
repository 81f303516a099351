mkdir t t/sub && echo one > t/one && echo two > t/sub/two && ln -s one t/link && ln t/one t/hard && chmod 4755 t/sub/two && chmod 700 t/sub && chown 33:100 t/one
tar --numeric-owner -cf t.tar -C t .
rm -r t
