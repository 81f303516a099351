mkdir -p p/1/q p/2/q p/3
echo 1 > p/1/q/a.c
echo 2 > p/2/q/b.c
echo 3 > p/3/c.c
