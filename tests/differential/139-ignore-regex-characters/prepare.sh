touch a+b aab '(x)' c.d cxd ^e e f$ f '{g}' g
