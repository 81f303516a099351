mkdir links
ln -s ../a.txt links/up
ln -s /etc/passwd links/abs
ln -s nowhere links/dangling
ln -s . links/self
mkdir links/d && ln -s ../d links/d/loop
