"""What is done with a trained network: prediction, cleaning, export, costs, attention maps."""
