echo x > h1 && ln h1 h2 && mkdir h && ln h1 h/a && ln h1 h/b
