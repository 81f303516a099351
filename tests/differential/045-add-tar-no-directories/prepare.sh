mkdir -p x/a/b
echo in > x/a/b/file
tar -cf t.tar -C x a/b/file
rm -r x
