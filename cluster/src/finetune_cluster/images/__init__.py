"""Container images of the project: built when their inputs change and brought to where the cluster finds them."""
