"""What a training will need, known before a GPU is asked for: from config.json and safetensors headers alone, without torch."""
