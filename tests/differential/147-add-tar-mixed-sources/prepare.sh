echo x > f && tar -cf t.tar f && rm f
