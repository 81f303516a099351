mkdir t t/sub && echo one > t/one && echo two > t/sub/two && ln -s one t/link && ln t/one t/hard && chmod 4755 t/sub/two && chmod 700 t/sub && chown 33:100 t/one
tar -czf t.tar.gz -C t .
tar -cjf t.tar.bz2 -C t .
tar -cJf t.tar.xz -C t .
cp t.tar.gz misnamed.txt
rm -r t
