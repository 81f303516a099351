mkdir odd
echo 1 > 'odd/%20'
echo 2 > 'odd/ü'
echo 3 > 'odd/a:b'
echo 4 > 'odd/-dash'
echo 5 > 'odd/back\\slash'
echo 6 > 'odd/#hash'
echo 7 > 'odd/"quote'
