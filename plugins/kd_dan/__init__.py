"""The deep averaging student of Ye et al. 2022."""
