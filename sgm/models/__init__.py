"""The networks, as plain torch modules: the video UNet, the autoencoder, CLIP's image tower and the conditioner."""
