ln -s a.txt to-file
ln -s dir to-dir
ln -s to-file chain
ln -s /dir/sub absolute
