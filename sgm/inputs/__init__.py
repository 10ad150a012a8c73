"""What goes in: images of any kind made fit for a model, objects cut out, cameras on their orbit. It knows no model."""
