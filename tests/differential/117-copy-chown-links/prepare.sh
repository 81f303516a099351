mkdir l && ln -s x l/s && echo y > l/f && ln l/f l/g
