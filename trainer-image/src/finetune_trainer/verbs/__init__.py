"""What the image can do beside training: check a job beforehand, look into its store, make other forms of its result, clean up."""
