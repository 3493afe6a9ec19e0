"""The artifact store: units are written once, published last and checked whenever they are read."""
