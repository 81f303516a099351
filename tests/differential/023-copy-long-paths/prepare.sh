p=deep; for i in 1 2 3 4 5 6; do p=$p/$(head -c 60 /dev/zero | tr '\0' $i); done
mkdir -p $p
echo end > $p/file
ln -s $p $p/link
