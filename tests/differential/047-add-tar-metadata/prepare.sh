mkdir x
mkfifo x/pipe
mknod x/null c 1 3
printf y > "x/ümläut name"
echo big > x/owner
chown 3000000:3000001 x/owner
tar --numeric-owner --format=pax -cf t.tar -C x .
rm -r x
