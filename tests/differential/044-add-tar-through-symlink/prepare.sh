mkdir -p x/abs
echo in > x/abs/file
tar -cf t.tar -C x abs/file
rm -r x
