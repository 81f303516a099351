touch '#x' '!y' '*z' az
