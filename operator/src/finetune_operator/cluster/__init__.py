"""The only part that talks to the API server: reads what is there, does what a plan says, translates errors once."""
