"""The convolutional student of Kim 2014."""
