echo 1 > '%41.txt'
echo 2 > A.txt
