"""What the image can do beside training: check a job before it costs anything, look into its store, clean up after it."""
