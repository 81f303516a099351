mkdir links
echo same > links/one
ln links/one links/two
mkdir links/sub
ln links/one links/sub/three
