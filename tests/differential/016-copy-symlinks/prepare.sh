mkdir -p links/real
echo inner > links/real/inner
echo file > links/file
ln -s file links/file-link
ln -s real links/dir-link
ln -s nowhere links/dangling
ln -s /etc/passwd links/absolute
ln -s ../.. links/up
