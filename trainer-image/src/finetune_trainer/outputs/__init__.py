"""What is made of the final weights after training: merged model, GGUF files, answers, model card. Needs no GPU."""
