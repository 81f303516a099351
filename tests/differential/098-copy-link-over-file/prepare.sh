mkdir links && ln -s a links/x
