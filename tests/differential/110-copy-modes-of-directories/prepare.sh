mkdir -p m/a m/b && chmod 750 m && chmod 2775 m/a && chmod 700 m/b && echo x > m/a/f && chmod 4755 m/a/f
