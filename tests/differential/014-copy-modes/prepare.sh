mkdir modes modes/sticky modes/setgid modes/closed
for m in 000 400 600 644 755 777 4755 2755 1644; do echo $m > modes/f$m; chmod $m modes/f$m; done
chmod 1777 modes/sticky
chmod 2775 modes/setgid
chmod 700 modes/closed
