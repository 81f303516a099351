echo 1 > one && tar -cf 1.tar one && echo 2 > two && tar -cf 2.tar two && rm one two
