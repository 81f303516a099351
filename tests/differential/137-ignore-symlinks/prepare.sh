mkdir t && touch t/x t/y && ln -s t l1 && ln -s t l2
