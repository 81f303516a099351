touch x.md y.md xy.txt
