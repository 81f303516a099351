mkdir names
for n in "with space" "100%25" "[b]" "ümläut" "日本" "tab	here" "-dash" "#hash" "star*" "quo'te" "back\\slash" ".wh" ; do printf x > "names/$n"; done
printf x > "names/$(head -c 200 /dev/zero | tr '\0' n)"
