ln -s a.txt l1
ln -s b.txt l2
mkdir lreal && echo x > lreal/x
