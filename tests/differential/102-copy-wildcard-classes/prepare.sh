echo 1 > "w[x].t"
echo 2 > "*star"
echo 3 > notstar
