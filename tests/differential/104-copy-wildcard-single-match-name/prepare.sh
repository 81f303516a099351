mkdir sub && echo n > sub/d.txt
