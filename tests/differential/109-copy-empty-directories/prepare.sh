mkdir -p e/one e/two/three && chmod 1777 e/one && chmod 500 e/two/three
