"""Universal potentials: pretrained networks, with the weights of other packages."""
