echo x > f && tar -cf archive.txt f && tar -czf archive.zip f && rm f && echo plain > real.tar.gz
