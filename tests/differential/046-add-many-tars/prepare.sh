echo 1 > one; echo 2 > two; tar -cf 1.tar one; tar -cf 2.tar two; rm one two
