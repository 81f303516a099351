echo x > f && tar -cf t.tar f && rm f && ln -s t.tar l.tar
