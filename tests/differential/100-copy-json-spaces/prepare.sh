echo 1 > "a file"
printf x > "$(printf 'b\tfile?')"
mkdir "dir with space" && echo 2 > "dir with space/f f"
echo 3 > xA
