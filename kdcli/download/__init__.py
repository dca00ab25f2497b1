"""``kd data get``: tasks, word vectors and transfer sets from the Hub or from an address."""
