mkdir t && echo x > t/f && ln t/f t/h && ln -s f t/s && ln -s /etc t/abs && ln -s .. t/up && tar -cf t.tar -C t . && rm -r t
