mkdir -p d1/s d2/s
echo 1 > d1/x
echo 2 > d2/x
echo 3 > d1/s/y
echo 4 > d2/s/z
