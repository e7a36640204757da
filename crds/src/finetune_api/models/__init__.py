"""What users write and what the operator answers: the models of the API group."""
