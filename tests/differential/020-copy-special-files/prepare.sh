mkdir special
mkfifo special/pipe
echo plain > special/plain
