echo x > f && tar -czf t.tar.gz --mtime=@0 f && tar -cJf t.tar.xz f && tar -cjf t.tar.bz2 f && rm f
