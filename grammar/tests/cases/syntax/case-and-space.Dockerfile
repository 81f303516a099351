
	 from alpine
  rUn echo   a  # not a comment  
	cmd [ "x" ]  
CoPy a b
