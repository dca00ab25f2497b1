"""``kd data get``: sources of tasks, word vectors and transfer sets, and what comes from the network."""
