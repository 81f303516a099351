mkdir -p x/y tmp/z x/tmp q/1/2
touch a.o x/b.o x/y/c.o x/y/keep.o keep.o tmp/z/f x/tmp/g q/1/2/r q/r q/1/s
